"""The figures of a report as images in TensorBoard."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from lazy_lightning.figures.style import paper_style

SUFFIX = ".report"


def write_events(figures: Mapping[str, Figure], folder: Path) -> Path:
    """Writes one event file with an image for each figure atomically, and removes that of an earlier report.

    Args:
        figures: the figures by tag.
        folder: the folder of the file.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    earlier = set(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    with tempfile.TemporaryDirectory(prefix=".events.", dir=folder) as temporary:
        with SummaryWriter(temporary, filename_suffix=SUFFIX) as writer, paper_style():
            for tag, figure in figures.items():
                writer.add_figure(tag, figure)
        (written,) = Path(temporary).iterdir()
        target = written.replace(folder / written.name)
    for path in earlier - {target}:
        path.unlink(missing_ok=True)
    return target
