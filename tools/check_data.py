"""`cwrgp-check-data`, run from a checkout."""

import sys

from d2_transfer.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main())
