"""`cwrgp-analyze`, run from a checkout."""

import sys

from cwrgp.commands.analyze import main

if __name__ == "__main__":
    sys.exit(main())
