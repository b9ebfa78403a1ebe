"""Reduction of parser errors to one sentence.

jsonargparse reports every type that it has tried as an indented tree: keys, unions, and the reason why each
subtype does not fit. This module parses the tree and formats its most specific leaf together with its key.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lazy_lightning.errors import suggestion

EXAMPLE = "fit --config digits_fc.yaml"

_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*')
_UNION = "Does not validate against any of the Union subtypes"
_GOT = re.compile(r"\.? Got value: (?P<value>.*)$", re.DOTALL)
_EXPECTED = re.compile(r"Expected an? (?P<type>.+?)\.?$|Expected (?P<bare>.+?)\.?$", re.DOTALL)
_OPTION = re.compile(r"Option '(?P<key>[^']+)' is not accepted(?: \(known: (?P<known>[^)]*)\))?$")
_UNKNOWN_KEY = (
    _OPTION,
    re.compile(r"Subcommand '\w+' does not accept option '(?P<key>[^']+)'(?: \(known: (?P<known>[^)]*)\))?$"),
    re.compile(r"(?:.*No action for key|Key) [\"'](?P<key>[^\"']+)[\"'].*?(?: \(known: (?P<known>[^)]*)\))?$"),
)
_CLASS = (
    re.compile(r"Problem with given class_path '(?P<name>[^']+)':\s*(?P<why>.*)", re.DOTALL),
    re.compile(
        r"Type .* expects a function or a callable class: (?P<why>.*?)\.?"
        r"(?: Got value: (?:Namespace\(class_path=')?(?P<name>[\w.]+).*)?$",
        re.DOTALL,
    ),
    re.compile(r"(?:Expected a dot import path string|Unexpected import path format): (?P<name>.*)(?P<why>)"),
    re.compile(r"Import path (?:(?P<name>\S+) )?(?P<why>does not correspond.*)", re.DOTALL),
)
_LONGEST = 2500
_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"}
# Expected values where the parser's types and the values that a flow accepts differ.
PRECISIONS = "64-true (the papers') or 32-true"
_HINTS = {"trainer.precision": PRECISIONS}


class Cause(NamedTuple):
    """One leaf of the tree of errors."""

    path: tuple[str, ...]
    text: str
    given: str | None
    expected: str | None
    """The types that a union of plain types accepts, in words."""

    @property
    def key(self) -> str:
        """The dotted key, such as ``model.alpha``."""
        return ".".join(self.path)


def one_sentence(message: str, files: Sequence[Path] = ()) -> str:
    """Returns the most specific cause in a jsonargparse message as one sentence, with what to do.

    Args:
        message: the argument of ``ArgumentParser.error``.
        files: the configurations that were read, to find the line of an unknown key.

    >>> one_sentence('Parser key "trainer.max_epochs":\\n  Expected a <class \\'int\\'>. Got value: ten')
    'trainer.max_epochs is ten, expected an integer'
    """
    causes = _causes(message)
    return _explain(max(causes, key=_specificity), files)  # the first of the most specific


def shorten(sentence: str) -> str:
    """Shortens the long words of a sentence in the middle, because quoted values may have any length.

    >>> len(shorten(f"alpha is {'x' * 1000}, expected a number"))
    170
    """
    words = re.sub(r"\S{151,}", lambda word: f"{word[0][:100]}...{word[0][-40:]}", sentence)
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 500]} ... {words[-500:]}"


def squeeze(text: str) -> str:
    """Joins the lines of a text by single spaces."""
    return re.sub(r"\s+", " ", text).strip()


# ---------------------------------------------------------------------- parsing the tree


def _causes(block: str, path: tuple[str, ...] = (), given: str | None = None) -> list[Cause]:
    block = _dedent(block)
    key = _KEY.match(block)
    if key is not None:
        return _causes(block[key.end() :], (*path, *key["key"].split(".")), given)
    if block.startswith(_UNION):
        return _union(block, path)
    items = _bullets(block)
    if items:
        return [cause for item in items for cause in _causes(item, path, given)]
    got = _GOT.search(block)
    plain = block.split("\nGiven value type:")[0]
    return [Cause(path, squeeze(plain), squeeze(got["value"]) if got else given, None)]


def _union(block: str, path: tuple[str, ...]) -> list[Cause]:
    value = re.search(r"^Given value: (.*)", block, re.MULTILINE | re.DOTALL)
    given = squeeze(value[1]) if value else None
    errors = re.search(r"^Errors:\n(.*?)(?=^Given value|\Z)", block, re.MULTILINE | re.DOTALL)
    causes = _causes(errors[1], path, given) if errors else []
    if any(cause.path != path or not _is_plain_type(cause.text) for cause in causes):
        return causes
    subtypes = re.search(r"^Subtypes: [\[(](.*)[\])]$", block, re.MULTILINE)
    return [Cause(path, _UNION, given, readable(_split_types(subtypes[1])) if subtypes else None)]


def _bullets(block: str) -> list[str]:
    """Returns the items of a list marked by ``- ``, each with all of its lines."""
    if not block.startswith("- "):
        return []
    return [item for item in re.split(r"^- ", block, flags=re.MULTILINE) if item.strip()]


def _dedent(block: str) -> str:
    """Removes the indentation of the first line and, separately, that of the other lines."""
    first, _, rest = block.strip("\n").partition("\n")
    if first[:1].isspace():
        return textwrap.dedent(block.strip("\n")).strip()
    return f"{first}\n{textwrap.dedent(rest)}".strip()


def _specificity(cause: Cause) -> tuple[int, int]:
    """Returns a sort key: deep leaves are more specific than shallow ones, wrong names than wrong types."""
    text = cause.text
    if text.startswith("Expected a path but") or "Subclasses are disabled" in text or "is abstract" in text:
        return len(cause.path), 0
    if any(pattern.match(text) for pattern in (*_UNKNOWN_KEY, *_CLASS[:2])):
        return len(cause.path), 3
    return len(cause.path), 1 if cause.expected is None and _is_plain_type(text) else 2


def _is_plain_type(text: str) -> bool:
    """Returns whether the text of a leaf contains only the expected type."""
    return _EXPECTED.match(text) is not None and not re.search(r"dot import path|is abstract|a path but", text)


# ---------------------------------------------------------------------- formatting a cause


def _explain(cause: Cause, files: Sequence[Path]) -> str:
    for explain in (_explain_unknown_key, _explain_class, _explain_subclass, _explain_file, _explain_type):
        sentence = explain(cause, files)
        if sentence:
            return sentence
    return _explain_rest(cause)


def _explain_unknown_key(cause: Cause, files: Sequence[Path]) -> str | None:
    for pattern in _UNKNOWN_KEY:
        found = pattern.match(cause.text)
        if found is not None:
            key = found["key"]
            known = [name.strip() for name in (found["known"] or "").split(",") if name.strip()]
            full = f"{cause.key}.{key}" if cause.key else key
            near = suggestion(key, known)
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if name.rpartition(".")[0] == parent]
            listed = f": the known keys are {', '.join(siblings)}" if siblings and len(siblings) <= 30 else ""
            return f"unknown key {full}{_where(key, files)}{near or listed}"
    return None


def _explain_class(cause: Cause, files: Sequence[Path]) -> str | None:
    for pattern in _CLASS:
        found = pattern.match(cause.text)
        if found is not None:
            quoted = re.search(r"class_path='([^']+)'", cause.given or "")
            name = found["name"] or (quoted[1] if quoted else cause.given) or "given"
            return _explain_bad_class(cause.key, name, squeeze(found["why"]))
    return None


def _explain_bad_class(key: str, name: str, why: str) -> str:
    known = _known_classes(key)
    near = suggestion(name.rpartition(".")[2], known)
    listed = f": give a full class_path, such as package.Class, or one of {', '.join(known)}" if known else ""
    key = key or "the configuration"
    denied = re.search(r"Importing '([^']+)' is not allowed", why)
    if denied is not None:
        return f"{key}: {denied[1]} belongs to Python's standard library, which a configuration cannot name{listed}"
    base = re.search(
        r"does not correspond to a subclass of (\w+)|to be a (?:subclass of|function that returns) (.*)", why
    )
    if base is not None:
        expected = re.sub(r"<class '([^']*)'>", r"\1", base[1] or base[2]).rstrip(".").replace("|", "or")
        bases = [part.rpartition(".")[2] for part in re.findall(r"[\w.]+", expected) if part not in ("Union", "or")]
        return f"{key}: {name} is not {_a(' or '.join(bases))}, nor a function annotated to return one{listed}"
    if "has no attribute '__name__'" in why:
        return f"{key}: {name} is neither a class nor a function{listed}"
    reason = f" ({why})" if why else ""
    return f"{key}: the class {name} cannot be imported{reason}{near or listed}"


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


NETWORKS = ("FC", "CNN", "WideResNet", "VGG", "ResNet18", "TwoLayer", "Symmetrized", "TorchvisionNetwork")
_NO_CHOICE = ("Split", "FlowData", "LearningRateSearch", "ObservedModule", "Ensemble", "StoppingCriteria")


def _known_classes(key: str) -> list[str]:
    from lazy_lightning import callbacks, data, modules

    package = {"data": data, "model": modules, "trainer.callbacks": callbacks}.get(key)
    if package is not None:
        return [name for name in package.__all__ if name not in _NO_CHOICE]
    return list(NETWORKS) if key.endswith("network") else []


def _explain_type(cause: Cause, files: Sequence[Path]) -> str | None:
    expected = _HINTS.get(cause.key) or cause.expected
    if expected is None:
        match = _EXPECTED.match(_GOT.sub("", cause.text))
        if match is None or not cause.key or not _is_plain_type(cause.text):
            return None
        expected = readable([match["type"] or match["bare"]])
    nested = re.match(r"NestedArg\(key='(.*?)', val='?(.*?)'?\)$", cause.given or "")
    key, given = (f"{cause.key}.{nested[1]}", nested[2]) if nested else (cause.key, cause.given)
    if given == "None" and "null" in expected:  # jsonargparse 4.53 parses a nested null twice, then as a string
        return f"{key} cannot be null on the command line: leave it out, or set it to null in a YAML file"
    return f"{key} is {given}, expected {expected}"


def _explain_rest(cause: Cause) -> str:
    text = cause.text
    help_option = re.match(r"(--[\w.]+)\.help: (.*)", text)
    if help_option is not None:
        known = _known_classes(help_option[1].removeprefix("--"))
        listed = f", such as {', '.join(known)}" if known else ""
        return f"{help_option[1]}.help takes the name of a class{listed} ({help_option[2]})"
    needed = re.match(r"the following arguments are required: (.*)|Option '(.*?)' is required", text)
    if needed is not None:
        names = (needed[1] or needed[2]).split(",")
        return _explain_required(cause.key, [name.strip().rpartition(".")[2] for name in names])
    if "before subcommand" in text:
        return f"options and --config come after the subcommand: lazy-lightning {EXAMPLE}"
    chosen = re.match(r"argument subcommand: invalid choice: '(.*?)' \(choose from (.*)\)", text)
    if chosen is not None:
        known = re.findall(r"\w+", chosen[2])
        return f"unknown subcommand {chosen[1]}{suggestion(chosen[1], known) or ': choose from ' + ', '.join(known)}"
    missing = re.match(r'[Ee]xpected "subcommand" to be one of \{(.*?)\}', text)
    if missing is not None:
        return f"no subcommand: start with lazy-lightning {EXAMPLE}; there are {missing[1].replace(',', ', ')}"
    argument = re.match(r"[Uu]nrecognized arguments: (.*?)(?: \(known: (.*)\))?$", text)
    if argument is not None:
        return _explain_arguments(argument[1].split(), (argument[2] or "").split(", "))
    return f"{cause.key}: {text}" if cause.key else _explain_by_trainer(text)


def _explain_subclass(cause: Cause, files: Sequence[Path]) -> str | None:
    match = re.match(r"Not a valid subclass of (\w+)", cause.text)
    if match is None:
        return None
    given = re.match(r".*?Got value: (.*?) Subclass types expect", cause.text)
    known = _known_classes(cause.key)
    listed = f", such as package.Class, or one of {', '.join(known)}" if known else ", such as package.Class"
    return f"{cause.key} is {given[1] if given else cause.given}, expected the class_path of {_a(match[1])}{listed}"


def _explain_file(cause: Cause, files: Sequence[Path]) -> str | None:
    match = re.match(r"Unable to load config ['\"](.*?)['\"]", cause.text)
    return f"{cause.key} is {match[1]}, expected keys and values, or a YAML file that holds them" if match else None


def _explain_by_trainer(text: str) -> str:
    """Shortens a message of Lightning's trainer to its first sentence and the list of available names."""
    if "gpu backend" in text:
        return "there is no GPU that torch can use here: leave --trainer.accelerator at auto, or set it to cpu"
    sentences = re.split(r"(?<=[`')\w])[.!] +(?=[A-Z])", text)
    return "; ".join(part.rstrip(".") for i, part in enumerate(sentences) if i == 0 or part.startswith("Available"))


def _explain_required(key: str, names: list[str]) -> str:
    if key:
        return f"{key} needs {', '.join(names)}: for example --{key}.{names[0]} VALUE"
    return (
        f"no {' and no '.join(sorted(names, reverse=True))} given: name a configuration, as in --config digits_fc.yaml"
    )


def _explain_arguments(arguments: list[str], known: list[str]) -> str:
    options = [a.split("=")[0] for a in arguments if a.startswith("-")]
    if not options:
        return f"unexpected {' '.join(arguments)}: options begin with --, as in --config digits_fc.yaml"
    return f"unknown option {options[0]}{suggestion(options[0], known) or ': see lazy-lightning fit --help'}"


def _where(key: str, files: Sequence[Path]) -> str:
    """Returns `` (FILE, line N)`` if exactly one line of the configurations has this key, else an empty string."""
    pattern = re.compile(rf"""^[^#]*?(?<![^\s{{,"'])["']?{re.escape(key.rpartition(".")[2])}["']?\+?\s*:""")
    lines = [
        f" ({path}, line {number})"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if pattern.match(line)
    ]
    return lines[0] if len(lines) == 1 else ""


def readable(types: Sequence[str]) -> str:
    """Describes Python types in plain words.

    >>> readable(["<class 'float'>", "list[float]"])
    'a number or a list of numbers'
    >>> readable(["typing.Literal['ntk', 'mean_field']", "<class 'NoneType'>"])
    'ntk, mean_field or null'
    >>> readable(["list[typing.Literal['linearized', 'frozen_activations']]"])
    'a list out of linearized, frozen_activations'
    """
    names: list[str] = []
    for kind in types:
        for name in _names(kind.strip()):
            if name not in names:
                names.append(name)
    names.sort(key=lambda name: (name == "null", name.startswith("a list")))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _names(kind: str) -> list[str]:
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", kind)
    if literal is not None:
        return [value.strip(" '\"") for value in literal[1].split(",")]
    listed = re.fullmatch(r"(?:typing\.)?(?:list|List)\[(.*)\]", kind)
    if listed is not None:
        if "Literal[" in listed[1]:
            return [f"a list out of {', '.join(_names(listed[1]))}"]
        inner = _names(f"<class '{listed[1]}'>")[0].removeprefix("an ").removeprefix("a ")
        return [f"a list of {inner}s"]
    name = re.sub(r"<class '(.*)'>", r"\1", kind).partition("[")[0].rpartition(".")[2]
    return [_TYPES.get(name, name)]


def _split_types(listed: str) -> list[str]:
    """Splits a list of types at the commas outside brackets."""
    return re.findall(r"(?:[^,\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])+", listed)
