"""`python -m kdtune`."""

import sys

from kdtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
