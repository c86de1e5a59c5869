"""`cwrgp-install-detectron2`, run from a checkout."""

import sys

from cwrgp.install_detectron2 import main

if __name__ == "__main__":
    sys.exit(main())
