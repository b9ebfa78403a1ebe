"""The time that this process took to import torch, Lightning and the package; a sweep's workers take it again."""

seconds = 0.0
"""Set by :mod:`lazy_lightning.cli.program`; 0 if everything had been imported before."""
