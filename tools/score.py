"""`cwrgp-score`, run from a checkout."""

import sys

from d2_transfer.commands.score import main

if __name__ == "__main__":
    sys.exit(main())
