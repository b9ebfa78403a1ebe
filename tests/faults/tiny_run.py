"""One tiny run by the command line, which malformed files are made of."""

from __future__ import annotations

from pathlib import Path

from trial import told

_OPTIONS = [
    "--model.network.width=4",
    "--model.network.depth=2",
    "--model.alpha=[0.1,10]",
    "--model.seeds=1",
    "--model.tau=0.5",
    "--data.n_train=12",
    "--data.n_test=6",
    "--trainer.enable_progress_bar=false",
    "--trainer.logger.init_args.name=tiny",
]


def fit(folder: Path, steps: int, checkpoint: Path | None = None) -> tuple[bool, list[str]]:
    """As :func:`trial.told`; the run is in ``tiny/version_0``."""
    from command_line import TINY

    place = [f"--trainer.logger.init_args.save_dir={folder}", f"--model.stop.max_steps={steps}"]
    return told([*TINY, *_OPTIONS, *place, *([f"--ckpt_path={checkpoint}"] if checkpoint else [])])


def sound_run(folder: Path, steps: int, checkpoint: Path | None = None) -> Path:
    """The folder of a run that has ended as it should."""
    done, said = fit(folder, steps, checkpoint)
    if not done:
        raise RuntimeError(f"the sound run of the campaign failed: {said}")
    return folder / "tiny" / "version_0"
