"""`cwrgp-predict`, run from a checkout."""

import sys

from d2_transfer.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
