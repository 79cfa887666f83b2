"""`python -m kdtune`."""

import sys

if __name__ == "__main__":
    try:
        from kdtune.cli import main
    except (ImportError, SyntaxError) as missing:  # another Python than the one that kdtune is installed for
        from kdtune.elsewhere import explained

        sys.exit(explained(missing, sys.argv[1:]))
    sys.exit(main())
