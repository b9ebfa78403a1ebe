"""Configurations bundled with the package, found by their name from any working folder, and checks of their content."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazy_lightning.deprecations import present_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.yaml_file import read_yaml

_PACKAGE = Path(__file__).parents[1]
# In an installed package the YAML folders lie inside of it; in a checkout they lie at the top, where users edit them.
_INSTALLED = _PACKAGE / "bundled"
_CHECKOUT = _PACKAGE.parent
_FOLDERS = ("configs", "callbacks")
_LONGEST_PATH = 4096
_FLAGS = ("-c", "--co", "--con", "--conf", "--confi", "--config")  # the parser accepts unambiguous abbreviations


def bundled_configs() -> dict[str, Path]:
    """Returns all bundled YAML files by name: configs as ``digits_fc.yaml``, presets as ``callbacks/NAME.yaml``."""
    found: dict[str, Path] = {}
    root = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else _INSTALLED
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.yaml")):
            inside = path.relative_to(root / folder).as_posix()
            found[inside if folder == "configs" else f"{folder}/{inside}"] = path
    return found


def find_config(name: str) -> Path:
    """Returns the file that ``--config name`` refers to; a file in the working folder precedes a bundled one.

    ``configs/digits_fc.yaml``, ``digits_fc.yaml`` and ``digits_fc`` all refer to the bundled file.

    Raises:
        ConfigError: there is none; the message lists the bundled files.
    """
    path = Path(name)
    if name and _is(path.is_file):
        return path
    known = bundled_configs()
    key = path.as_posix().removeprefix("configs/")
    for candidate in (key, f"{key}.yaml"):
        if candidate in known:
            return known[candidate]
    if name and _is(path.exists):
        return path  # a folder or a pipe, which the reader refuses
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or [k for k in known if key in k]
    hint = f"did you mean {near[0]}? There are" if near else "give the path of a YAML file, or one of the bundled"
    raise ConfigError(f"there is no configuration file {name}: {hint} {', '.join(sorted(known))}")


def _is(test: Callable[[], bool]) -> bool:
    """Returns the result of a test of a path, or False if its text is not a valid path, such as 5000 letters."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def resolve_configs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Returns the arguments with every ``--config NAME`` replaced by the path of its file, and these files.

    Raises:
        ConfigError: a file is missing or is not a YAML mapping, or a later one drops the callbacks of an earlier one.
    """
    resolved: list[str] = []
    files: dict[str, Path] = {}
    for flag, argument in _flagged(present_arguments(arguments)):
        if flag is not None:
            files[argument] = find_config(argument)
        if flag is None:
            option, equals, value = argument.partition("=")
            refuse_stream(value if equals else argument, option if equals else "an argument")
        resolved.append(argument if flag is None else f"{flag}{files[argument]}")
    configs = {name: read_config(path) for name, path in files.items()}
    for name, config in configs.items():
        if not config:
            raise ConfigError(f"{name} holds no keys: add some, such as 'model:' and 'data:', or leave the file out")
        check_content(config, name)
    check_stack(configs)
    return resolved, list(files.values())


def read_config(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file; its values are not checked here but by the parser.

    Raises:
        ConfigError: it is not YAML or not a mapping; the message names the file and the line.
    """
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, not keys and values such as 'model:' and 'data:'")
    for name in content:
        if not isinstance(name, str):
            raise ConfigError(
                f"{path} has the key {_format_value(name)}, expected names such as model, data and trainer"
            )
    return content


def check_content(value: Any, file: str, key: str = "") -> None:
    """Checks at any depth that each ``class_path`` is a string, ``init_args`` are mappings, and no value is a pipe.

    Raises:
        ConfigError: a value is none of these; the message names the key.
    """
    if isinstance(value, str):
        refuse_stream(value, f"{file}: {key}")
    if isinstance(value, list):
        for part in value:
            check_content(part, file, key)
    if not isinstance(value, dict):
        return
    for name, part in value.items():
        full = f"{key}.{name}" if key else str(name)
        if name == "class_path" and not (isinstance(part, str) and part):
            raise ConfigError(
                f"{file}: {full} is {_format_value(part)}, expected the dotted name of a class, such as package.Class"
            )
        if name in ("init_args", "dict_kwargs") and not isinstance(part, dict):
            raise ConfigError(
                f"{file}: {full} is {_format_value(part)}, expected keys and values, the arguments of the class"
            )
        check_content(part, file, full)


def refuse_stream(value: str, key: str) -> None:
    """Refuses the name of a pipe, or ``-``: the parser would read a class from that file, and block.

    Raises:
        ConfigError: the value is such a name; the message names the key.
    """
    if value == "-" or (0 < len(value) < _LONGEST_PATH and _is(Path(value).is_fifo)):
        raise ConfigError(f"{key} is {value}, a pipe or the standard input: give a value, or a file that ends")


def _format_value(value: Any) -> str:
    return "null" if value is None else repr(value)


def empty_mappings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the paths of the empty mappings in a configuration, which the parser drops even if they are unknown."""
    if isinstance(value, dict):
        if not value:
            yield path
        for name, part in value.items():
            yield from empty_mappings(part, (*path, str(name)))


def check_stack(configs: Mapping[str, dict[str, Any]]) -> None:
    """Refuses a stack of configurations in which a later file drops the observers of an earlier one by accident.

    ``callbacks+:`` appends, a plain ``callbacks:`` replaces. An empty list replaces deliberately and is accepted.

    Raises:
        ConfigError: a later plain list lacks a class that an earlier file contains.
    """
    requested: dict[str, str] = {}
    for path, config in configs.items():
        trainer = config.get("trainer")
        if not isinstance(trainer, dict):
            continue
        plain = _classes(trainer.get("callbacks"))
        lost = {name: source for name, source in requested.items() if name not in plain}
        if plain and lost:
            name, source = next(iter(lost.items()))
            raise ConfigError(
                f"{path} has a plain list of trainer.callbacks, which would drop {name} of {source}: "
                f"give --config {path} before --config {source}, or write callbacks+ instead of callbacks in {path}"
            )
        if "callbacks" in trainer:
            requested = {}
        requested |= dict.fromkeys([*plain, *_classes(trainer.get("callbacks+"))], path)


def _classes(callbacks: Any) -> list[str]:
    """Returns the class names, without modules, of a list of callbacks or of one callback."""
    items = callbacks if isinstance(callbacks, list) else [callbacks]
    paths = [item.get("class_path") if isinstance(item, dict) else item for item in items]
    return [path.rpartition(".")[2] for path in paths if isinstance(path, str)]


def _flagged(arguments: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Yields each argument with ``""`` or ``--config=`` if it is the name of a configuration, and with None if not."""
    follows = False
    for argument in arguments:
        flag, equals, name = argument.partition("=")
        if follows:
            yield "", argument
        elif equals and flag in _FLAGS:
            yield f"{flag}=", name
        else:
            yield None, argument
        follows = not follows and argument in _FLAGS
