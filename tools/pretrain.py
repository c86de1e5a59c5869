"""`cwrgp-pretrain`, run from a checkout."""

import sys

from cwrgp.commands.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
