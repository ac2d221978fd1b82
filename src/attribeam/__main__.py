"""``python -m attribeam`` is the process ``attribeam``."""

import sys

from attribeam.pipeline.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
