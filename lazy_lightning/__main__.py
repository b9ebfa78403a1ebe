"""``python -m lazy_lightning``; kept free of classes, which would lose their identity here."""

import sys

from lazy_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
