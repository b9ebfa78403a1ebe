"""How long this process took to import torch, Lightning and the package, which a sweep's workers take again."""

seconds = 0.0
"""Set by :mod:`lazy_lightning.cli.program`; 0 where everything had been imported before."""
