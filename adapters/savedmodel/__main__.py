"""`python -m adapters.savedmodel`: hands over to `cli.main`."""

import sys

from adapters.savedmodel.cli import main

if __name__ == "__main__":
    sys.exit(main())
