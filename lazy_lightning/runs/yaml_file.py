"""The reader of all YAML files: it accepts only plain data, within limits on size, depth and number of nodes.

The package uses it for configurations, sweeps and the ``config.yaml`` of a run. These files are untrusted, so they must
not block the program, exhaust the memory or construct objects. Scalars are resolved as by jsonargparse: ``1e-3`` is a
number, a date is a string. A key given twice is refused.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from lazy_lightning.errors import ConfigError

_CORE = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_FLOAT_TAG = "tag:yaml.org,2002:float"
_DROPPED = (_FLOAT_TAG, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class Limits(NamedTuple):
    """Upper limits on the content of a file."""

    bytes: int = 4 << 20
    """Size of the file."""
    depth: int = 64
    """Depth of nested mappings and lists with expanded aliases."""
    nodes: int = 100_000
    """Number of scalars, lists and mappings with expanded aliases."""


LIMITS = Limits()


class YAMLFileError(ConfigError):
    """A file or a string is not valid YAML of plain data within the limits."""


def read_yaml(path: Path, limits: Limits = LIMITS) -> Any:
    """Returns the plain data in a YAML file; None if the file is empty.

    Raises:
        YAMLFileError: the path is not a regular file, or the file is too large, not text, not valid YAML, or has a tag
            for something other than plain data.
        OSError: the file cannot be opened.
    """
    return parse_yaml(read_text(path, limits), str(path), limits)


def read_text(path: Path, limits: Limits = LIMITS) -> str:
    """Returns the text of a configuration file, without a byte order mark.

    Raises:
        YAMLFileError: the path is not a regular file, or the file is too large or not UTF-8.
        OSError: the file cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # reading a FIFO may block, reading a device may never end
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise YAMLFileError(f"{path} is {kind}, expected a YAML file")
    with path.open("rb") as file:
        content = file.read(limits.bytes + 1)
    if len(content) > limits.bytes:
        raise YAMLFileError(f"{path} is larger than {_mebibytes(limits)}, the limit for a configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YAMLFileError(
            f"{path} is not a YAML file (byte {error.start} is not UTF-8): give a text file of keys and values"
        ) from error


def parse_yaml(text: str, name: str = "the text", limits: Limits = LIMITS) -> Any:
    """Returns the plain data in a YAML text.

    >>> parse_yaml("{alpha: 1e-3, seeds: [0, 1], when: 2020-01-01}")
    {'alpha': 0.001, 'seeds': [0, 1], 'when': '2020-01-01'}

    Args:
        text: the text to parse.
        name: the name of the file, for error messages.
        limits: limits on the content.

    Raises:
        YAMLFileError: the text is invalid; the message names the file and the line.
    """
    try:
        loader = BoundedLoader(text, limits)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = text.rstrip().count("\n")  # an error at the end of the text is reported at its last line
        line = f", line {min(mark.line, last) + 1}" if mark is not None else ""
        problem = " ".join((error.problem or "").split())
        if isinstance(error, LimitError):
            raise YAMLFileError(f"{name}{line}: {problem}, which no configuration needs") from error
        raise YAMLFileError(
            f"{name}{line}: this is not valid YAML ({problem}): correct this line or the one above"
        ) from error
    except (yaml.YAMLError, UnicodeError) as error:  # raised for a character that YAML does not allow
        raise YAMLFileError(
            f"{name} is not a YAML file (it holds a control character): give a text file of keys and values"
        ) from error


class LimitError(yaml.MarkedYAMLError):
    """A text exceeds a limit; raised before anything is built from it."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the loader of libyaml, if present, is ten times faster


class BoundedLoader(_Base):  # type: ignore[misc]  # one of two classes
    """PyYAML's safe loader with limits, restricted to plain data and to keys that are given once.

    Raises:
        yaml.YAMLError: a limit is exceeded, a tag is not one of plain data, a value does not fit its tag, or a key is
            given twice, where PyYAML would keep the last value.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str, limits: Limits = LIMITS) -> None:
        _check_limits(stream, limits)
        super().__init__(stream)

    def get_single_data(self) -> Any:
        """Constructs the only document of the text.

        Raises:
            yaml.YAMLError: for the reasons given in the class.
        """
        node = self.get_single_node()
        if node is None:
            return None
        self._check_nodes(node)
        return self.construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Constructs an object as PyYAML does, but raises every failure as an error with a line number.

        Raises:
            yaml.YAMLError: the value does not fit its tag, as in ``!!int abc``.
        """
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            shown = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
            raise _error(f"{shown} is not of the type !!{node.tag.rpartition(':')[2]}", node) from error

    def _check_nodes(self, root: yaml.Node) -> None:
        """Checks tags and keys of each node once, before merge keys are expanded, which would duplicate keys."""
        waiting, seen = [root], {id(root)}
        while waiting:
            node = waiting.pop()
            if node.tag not in _CORE:
                raise _error(f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not plain data", node)
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            for child in children:
                if id(child) not in seen:
                    seen.add(id(child))
                    waiting.append(child)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        first: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a list or a mapping, expected a name", key)
            merge = key.tag == "tag:yaml.org,2002:merge"
            value = ("<<",) if merge or key.tag not in _CORE else self.construct_object(key)
            other = first.setdefault(value, key)
            if other is not key:
                raise _error(f"the key {key.value!r} is given twice, first in line {other.start_mark.line + 1}", key)


BoundedLoader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


class _Open(NamedTuple):
    """A list or mapping whose end has not been read yet."""

    anchor: str | None
    """The anchor of the node, if any."""
    before: int
    """Number of nodes before it."""


class _Anchored(NamedTuple):
    """The size of the node that an alias refers to."""

    nodes: int
    """Number of nodes."""
    height: int
    """Depth of nested lists and mappings."""


def _check_limits(text: str, limits: Limits) -> None:
    """Reads the text as a stream of events, without recursion, and raises where a limit is exceeded."""
    if len(text) > limits.bytes:
        raise LimitError(problem=f"there are more than {_mebibytes(limits)} of text")
    anchored: dict[str, _Anchored | None] = {}  # None until the end of the node
    opened: list[_Open] = []
    heights = [0]  # depths of the contents of the open nodes
    count = 0
    for event in yaml.parse(text, Loader=_Base):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            known = anchored.get(str(event.anchor), _Anchored(1, 0))  # the composer raises for undefined aliases
            if known is None:
                raise _exceeded(event, f"the alias *{event.anchor} is inside of the node that it refers to")
            count += known.nodes
            heights[-1] = max(heights[-1], known.height)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Open(anchor, count))
            heights.append(0)
            count += 1
            if anchor is not None:
                anchored[anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            start, height = opened.pop(), heights.pop() + 1
            heights[-1] = max(heights[-1], height)
            if start.anchor is not None:
                anchored[start.anchor] = _Anchored(count - start.before, height)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if anchor is not None:
                anchored[anchor] = _Anchored(1, 0)
        if len(opened) + heights[-1] > limits.depth:
            raise _exceeded(event, f"there are more than {limits.depth} nested lists and mappings, counting aliases")
        if count > limits.nodes:
            raise _exceeded(event, f"there are more than {limits.nodes} values, counting aliases")


def _exceeded(event: Any, problem: str) -> LimitError:
    return LimitError(problem=problem, problem_mark=event.start_mark)


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


def _mebibytes(limits: Limits) -> str:
    return f"{limits.bytes / (1 << 20):.3g} MiB"
