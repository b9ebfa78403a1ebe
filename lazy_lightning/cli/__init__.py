"""The command line: ``python -m lazy_lightning fit --config digits_fc.yaml``."""

from lazy_lightning.cli.flow_cli import FlowCLI, single_observers
from lazy_lightning.cli.program import main
from lazy_lightning.cli.told import quieten, told

__all__ = ["FlowCLI", "main", "quieten", "single_observers", "told"]
