"""Sink that draws the learning curves at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from lazy_lightning.callbacks.curves import Curves
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.figures.learning_curves import learning_curves, single_panels
from lazy_lightning.figures.style import paper_style, save, space_labels
from lazy_lightning.modules.observation import Sink

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class LearningCurves(Sink):
    """Sink that writes ``figures/learning_curves.png`` and ``.pdf`` to the run's folder and images to TensorBoard.

    In TensorBoard each panel is an image of its own, ``learning_curves/loss``, ``learning_curves/error`` and so on,
    because TensorBoard shows images at the width of a card.
    """

    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Draws the records of the :class:`Curves` callback."""
        tables = [c for c in trainer.callbacks if isinstance(c, Curves) and c.records]  # type: ignore[attr-defined]
        if not tables or trainer.log_dir is None or not trainer.is_global_zero:
            return
        curves = tables[0].table(pl_module)
        path = Path(trainer.log_dir) / "figures" / "learning_curves"
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        h = float(getattr(pl_module.network.template, "width", None) or "nan")
        drawn, panels = learning_curves(curves, h), single_panels(curves, h) if boards else {}
        with warn_if_unwritten(pl_module, path):  # a figure that cannot be drawn is not a file that cannot be written
            save(drawn, path)
            for name, figure in panels.items():
                space_labels(figure)
                with paper_style():
                    for board in boards:
                        board.experiment.add_figure(f"learning_curves/{name}", figure, pl_module.observations)
