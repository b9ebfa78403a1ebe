"""Entry point of ``python -m lazy_lightning``. Defines no classes, because they would belong to ``__main__``."""

import sys

from lazy_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
