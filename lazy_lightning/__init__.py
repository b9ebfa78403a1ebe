"""lazy_lightning: find out whether a neural network trains lazily or learns features."""

__version__ = "0.1.0"
