"""`cwrgp-embed`, run from a checkout."""

import sys

from cwrgp.commands.embed import main

if __name__ == "__main__":
    sys.exit(main())
