"""`cwrgp-publish`, run from a checkout."""

import sys

from cwrgp.commands.publish import main

if __name__ == "__main__":
    sys.exit(main())
