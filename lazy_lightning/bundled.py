"""Configurations that come with the package, found by their bare name from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazy_lightning.errors import ConfigError

_PACKAGE = Path(__file__).parent
# Installed, the YAML folders lie inside the package; in a checkout they stand at the top, where people edit them.
_ROOTS = (_PACKAGE / "bundled", _PACKAGE.parent)
_FOLDERS = ("configs", "callbacks")


def bundled_configs() -> dict[str, Path]:
    """All bundled YAML files: configs as ``digits_fc.yaml``, presets of observers as ``callbacks/NAME.yaml``."""
    found: dict[str, Path] = {}
    for root in reversed(_ROOTS):
        for folder in _FOLDERS:
            for path in sorted((root / folder).rglob("*.yaml")):
                inside = path.relative_to(root / folder).as_posix()
                found[inside if folder == "configs" else f"{folder}/{inside}"] = path
    return found


def find_config(name: str) -> Path:
    """The file that ``--config name`` means: one in the working folder wins over a bundled one.

    ``configs/digits_fc.yaml`` and ``digits_fc.yaml`` both find the bundled file.

    Raises:
        ConfigError: if there is none; the sentence lists those that exist.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = bundled_configs()
    key = path.as_posix().removeprefix("configs/")
    if key in known:
        return known[key]
    raise ConfigError(
        f"there is no configuration file {name!r}: give the path of a YAML file, or one of the bundled "
        f"{', '.join(sorted(known))}"
    )


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with every ``--config NAME`` replaced by the path of its file."""
    resolved: list[str] = []
    for i, argument in enumerate(arguments):
        follows = i > 0 and arguments[i - 1] in ("--config", "-c")
        if follows:
            resolved.append(str(find_config(argument)))
        elif argument.startswith("--config="):
            resolved.append(f"--config={find_config(argument.removeprefix('--config='))}")
        else:
            resolved.append(argument)
    return resolved
