"""The ``config.yaml`` of a run started by a script: a description of its objects, so that the run store finds it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pytorch_lightning import Trainer

from lazy_lightning import __version__
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.modules.observation import Observer
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.description import array_digest, described
from lazy_lightning.runs.run_files import CONFIG

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

MADE_FROM = "made_from"
PYTHON = "python"
_TRAINER = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
)
"""Options that are part of a member's identity; a Trainer has attributes with these names."""


def write_python_config(trainer: Trainer, module: ObservableModule) -> None:
    """Writes the description of a run into its folder, unless the command line has written the configuration there.

    This is called before each file that marks the folder as a run; only the first call of a fit writes. A run that is
    refused before training leaves no file.
    """
    if module.is_described or trainer.log_dir is None or not trainer.is_global_zero:
        return
    module.is_described = True
    path = Path(trainer.log_dir) / CONFIG
    if path.is_file() and f"\n{MADE_FROM}: {PYTHON}\n" not in path.read_text(encoding="utf-8"):
        return
    content = described_run(trainer, module)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# lazy-lightning=={__version__}, pytorch-lightning=={version('pytorch-lightning')}\n"
    note = "# Described from the objects of a script: to read, not to run.\n"
    with warn_if_unwritten(module, path), written_atomically(path) as temporary:
        temporary.write_text(head + note + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def described_run(trainer: Trainer, module: ObservableModule) -> dict[str, Any]:
    """Returns the keys of a configuration, with digests of the samples, which identify data better than arguments."""
    model, data = described(module), described(module.data)
    ensemble = module.ensemble
    model["init_args"] |= {"alpha": list(dict.fromkeys(ensemble.alphas)), "seeds": list(dict.fromkeys(ensemble.seeds))}
    for name in ("train", "test"):
        split = getattr(module.data, name)
        data[f"{name}_set"] = {"x": array_digest(split.x), "y": array_digest(split.y)}
    data[MADE_FROM] = PYTHON  # hashed, so the identity differs from that of any run of the command line
    observers = [described(each) for each in trainer.callbacks if isinstance(each, Observer)]  # type: ignore[attr-defined]
    limits = {name: getattr(trainer, name) for name in _TRAINER}
    return {
        MADE_FROM: PYTHON,
        "trainer": {"precision": str(trainer.precision), **limits, "callbacks": observers},
        "model": model,
        "data": data,
    }
