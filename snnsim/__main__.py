"""`python -m snnsim`: the same as the command `snnsim`."""

import sys

from snnsim.cli.main import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
