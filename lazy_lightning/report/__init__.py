"""Reports of sweeps: figures, their numbers, and one page."""

from lazy_lightning.report.own_folder import require_own_folder
from lazy_lightning.report.report import Report, write_report

__all__ = ["Report", "require_own_folder", "write_report"]
