"""``python -m orchestrator`` is ``distillery``."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
