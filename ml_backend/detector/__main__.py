"""``python -m ml_backend.detector``: see :mod:`ml_backend.detector.commands`."""

import sys

from ml_backend.detector.commands import main

if __name__ == "__main__":
    sys.exit(main())
