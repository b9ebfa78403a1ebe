"""What a sweep has found, as figures, numbers and one page."""

from lazy_lightning.report.report import Report, write_report

__all__ = ["Report", "write_report"]
