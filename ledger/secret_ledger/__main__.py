"""`python -m secret_ledger`: the command line, if no script is on PATH."""

import sys

from secret_ledger.cli import main

if __name__ == "__main__":
    sys.exit(main())
