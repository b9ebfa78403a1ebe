"""The one reader of YAML: plain data alone, within limits on size, depth and number of nodes.

Everything that the package reads as YAML comes through here: configurations, sweeps, the ``config.yaml`` of a run.
Such a file may come from anybody, so none may hang the program, fill the memory or build an object. Scalars are
resolved as jsonargparse does it: ``1e-3`` is a number, a date is text. A key given twice is refused.
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
    """What a file may hold at most."""

    bytes: int = 4 << 20
    depth: int = 64
    """Nested mappings and lists, aliases expanded."""
    nodes: int = 100_000
    """Scalars, lists and mappings, aliases expanded."""


LIMITS = Limits()


class YAMLFileError(ConfigError):
    """A file, or a text, is not YAML that can be used."""


def read_yaml(path: Path, limits: Limits = LIMITS) -> Any:
    """The plain data that a YAML file holds; None if it is empty.

    Raises:
        YAMLFileError: it is no regular file, too large, not text, not valid YAML, or builds more than plain data.
        OSError: it cannot be opened.
    """
    return parse_yaml(read_text(path, limits), str(path), limits)


def read_text(path: Path, limits: Limits = LIMITS) -> str:
    """The text of a configuration file, without a byte order mark.

    Raises:
        YAMLFileError: it is no regular file, too large, or not UTF-8.
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would wait for a writer, a device might never end
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise YAMLFileError(f"{path} is {kind}, expected a YAML file")
    with path.open("rb") as file:
        content = file.read(limits.bytes + 1)
    if len(content) > limits.bytes:
        raise YAMLFileError(f"{path} is larger than {_mebibytes(limits)}, the most that a configuration may have")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YAMLFileError(
            f"{path} is not a YAML file (byte {error.start} is not UTF-8): give a text file of keys and values"
        ) from error


def parse_yaml(text: str, name: str = "the text", limits: Limits = LIMITS) -> Any:
    """The plain data that a YAML text holds.

    >>> parse_yaml("{alpha: 1e-3, seeds: [0, 1], when: 2020-01-01}")
    {'alpha': 0.001, 'seeds': [0, 1], 'when': '2020-01-01'}

    Args:
        text: the YAML.
        name: of the file, for errors.
        limits: what it may hold.

    Raises:
        YAMLFileError: with file and line.
    """
    try:
        loader = BoundedLoader(text, limits)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = text.rstrip().count("\n")  # what lacks at the end of a text is told of its last line
        line = f", line {min(mark.line, last) + 1}" if mark is not None else ""
        problem = " ".join((error.problem or "").split())
        if isinstance(error, LimitError):
            raise YAMLFileError(f"{name}{line}: {problem}, which no configuration needs") from error
        raise YAMLFileError(f"{name}{line}: this is not valid YAML ({problem}): mend it there or just above") from error
    except (yaml.YAMLError, UnicodeError) as error:  # of the reader: a character that YAML has not
        raise YAMLFileError(
            f"{name} is not a YAML file (it holds a control character): give a text file of keys and values"
        ) from error


class LimitError(yaml.MarkedYAMLError):
    """A text exceeds a limit; raised before anything is built from it."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster, where PyYAML has it


class BoundedLoader(_Base):  # type: ignore[misc]  # one of two classes
    """PyYAML's safe loader, within limits, of plain data alone, and without keys that are given twice.

    Raises:
        yaml.YAMLError: a limit is exceeded, a tag asks for more than plain data, a value does not fit its tag, or a
            key is given twice, where PyYAML would keep the last value.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str, limits: Limits = LIMITS) -> None:
        _check_limits(stream, limits)
        super().__init__(stream)

    def get_single_data(self) -> Any:
        """Builds the one document of the text.

        Raises:
            yaml.YAMLError: see the class.
        """
        node = self.get_single_node()
        if node is None:
            return None
        self._check_nodes(node)
        return self.construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML does, with every failure as an error that has a line.

        Raises:
            yaml.YAMLError: the value does not fit its tag, as in ``!!int abc``.
        """
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            shown = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
            raise _error(f"{shown} is not of the type !!{node.tag.rpartition(':')[2]}", node) from error

    def _check_nodes(self, root: yaml.Node) -> None:
        """Before merge keys are expanded, which looks like keys given twice. Each node once, whatever its aliases."""
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
    """A list or mapping that has begun."""

    anchor: str | None
    before: int
    """Nodes before it."""


class _Anchored(NamedTuple):
    """What an alias stands for."""

    nodes: int
    height: int
    """Of nested lists and mappings."""


def _check_limits(text: str, limits: Limits) -> None:
    """Reads the text as a stream of events, without recursion, and stops where a limit is exceeded."""
    if len(text) > limits.bytes:
        raise LimitError(problem=f"there are more than {_mebibytes(limits)} of text")
    anchored: dict[str, _Anchored | None] = {}  # None before its end
    opened: list[_Open] = []
    heights = [0]  # of what each open node holds
    count = 0
    for event in yaml.parse(text, Loader=_Base):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            known = anchored.get(str(event.anchor), _Anchored(1, 0))  # what is undefined is told by the composer
            if known is None:
                raise _exceeded(event, f"the alias *{event.anchor} stands inside of what it names")
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
