"""`cwrgp-evaluate`, run from a checkout."""

import sys

from cwrgp.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
