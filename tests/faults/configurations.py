"""Configurations that must be refused, generated from a seed: for the tests, and for the long campaign.

Each is the content of a YAML file that is stacked on ``digits_fc.yaml`` and ``overlays/tiny.yaml``. Nothing here needs
pytest or imports the package.
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml


class Case(NamedTuple):
    """One malformed configuration."""

    name: str
    """What is wrong with it, and where; unique within a campaign."""
    content: bytes
    """Of the YAML file."""

    @property
    def kind(self) -> str:
        """The kind of fault, for counts."""
        return self.name.partition(":")[0]


def malformed_configurations(count: int, seed: int = 0) -> Iterator[Case]:
    """``count`` malformed configurations, the same for the same seed; all kinds in turn."""
    rng = random.Random(seed)
    kinds = itertools.cycle(KINDS.items())
    seen: set[str] = set()
    while len(seen) < count:
        kind, make = next(kinds)
        for _ in range(50):
            what, content = make(rng)
            name = f"{kind}: {what}"
            if name not in seen:
                break
        else:  # this kind has no more
            name = f"{name} again {len(seen)}"
        seen.add(name)
        yield Case(name, content if isinstance(content, bytes) else content.encode("utf-8"))


Made = tuple[str, str | bytes]

# ---------------------------------------------------------------------- keys and their types

_MODEL, _DATA = "model.init_args", "data.init_args"
_NETWORK, _STOP, _SCHEDULE = f"{_MODEL}.network.init_args", f"{_MODEL}.stop", f"{_MODEL}.schedule"

NUMBER, COUNT, WHOLE, TRUTH, NAME, NUMBERS, SEEDS = "number", "count", "whole", "truth", "name", "numbers", "seeds"

LEAVES: dict[str, str] = {
    f"{_MODEL}.alpha": NUMBERS,
    f"{_MODEL}.seeds": SEEDS,
    f"{_MODEL}.centering": TRUTH,
    f"{_MODEL}.loss": NAME,
    f"{_MODEL}.controller": NAME,
    f"{_MODEL}.dt": NUMBER,
    f"{_MODEL}.chunk_size": COUNT,
    f"{_NETWORK}.width": COUNT,
    f"{_NETWORK}.depth": COUNT,
    f"{_NETWORK}.activation": NAME,
    f"{_NETWORK}.head": NAME,
    f"{_STOP}.margin_share": NUMBER,
    f"{_STOP}.t_max": NUMBER,
    f"{_STOP}.max_steps": COUNT,
    f"{_STOP}.max_wall": NUMBER,
    f"{_SCHEDULE}.max_burst": COUNT,
    f"{_SCHEDULE}.t_factor": NUMBER,
    f"{_DATA}.n_train": COUNT,
    f"{_DATA}.n_test": COUNT,
    f"{_DATA}.train_seed": WHOLE,
    f"{_DATA}.test_seed": WHOLE,
    f"{_DATA}.labels": NAME,
    f"{_DATA}.sphere": TRUTH,
    f"{_DATA}.pca": COUNT,
    f"{_DATA}.statistics": NAME,
    "trainer.precision": NAME,
    "trainer.accelerator": NAME,
    "trainer.max_epochs": WHOLE,
    "trainer.inference_mode": TRUTH,
}
SECTIONS = ("model", "data", "trainer", _MODEL, _DATA, f"{_MODEL}.network", _NETWORK, _STOP, _SCHEDULE)
_RAW = "\0"  # before a value that is written as it is, not as YAML would write it

WRONG: dict[str, tuple[Any, ...]] = {
    NUMBER: ("abc", [], {}, [1.0], {"a": 1}, True, float("nan"), -1.0, -float("inf"), _RAW + "!!float x", "2020-01-01"),
    COUNT: ("abc", [], {}, [3], {"a": 1}, True, 1.5, 0, -1, float("inf"), float("nan"), _RAW + "!!int abc", "1:2:x"),
    WHOLE: ("abc", [], {}, [3], {"a": 1}, 1.5, float("nan"), _RAW + "!!int x", -(2**70), "12 monkeys"),
    TRUTH: ("maybe", [], {}, [True], 3, 1.5, None, {"a": True}, _RAW + "!!bool x", "0 1"),
    NAME: ("no such thing", [], {}, ["a", "b", "c"], {"no": "thing"}, 17.5, True, "os.system", "${x}", "%s"),
    NUMBERS: (
        "abc", [], {}, ["x"], [[1.0]], {"a": 1}, True, None, 0, -1.0, float("nan"), float("inf"), [1.0, None], [True],
        [1.0, 0.0], [float("nan")], _RAW + "!!float x",
    ),
    SEEDS: (
        "abc", [], {}, ["x"], [[1]], {"a": 1}, True, None, 0, -1, 1.5, [0, -1], [1.5], [0, 0.5], 2**63, [2**63], 10**30,
        _RAW + "!!int x", [True], 10**9,
    ),
}  # fmt: skip
_RAW_VALUES = {
    yaml.safe_dump(value).strip(): value.removeprefix(_RAW)
    for value in itertools.chain(*WRONG.values())
    if isinstance(value, str) and value.startswith(_RAW)
}
EVIL = (
    "os.system", "subprocess.call", "subprocess.Popen", "builtins.eval", "builtins.exec", "functools.partial",
    "importlib.import_module", "runpy.run_path", "pickle.loads", "torch.load", "torch.hub.load", "shutil.rmtree",
    "antigravity.geohash", "faults_canary.effect", "faults_canary.Canary", "faults_canary.instance",
    "faults_canary.Canary.make", "faults_canary.bound",
)  # fmt: skip


def nested(key: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` of ``a.b``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    content: dict[str, Any] = value
    return content


def written(content: Any) -> str:
    """As YAML; what is marked as raw stays as it is."""
    text: str = yaml.safe_dump(content, sort_keys=False)
    for dumped, raw in _RAW_VALUES.items():
        text = text.replace(dumped, raw)
    return text


# ---------------------------------------------------------------------- kinds of faults


def _wrong_value(rng: random.Random) -> Made:
    key, kind = rng.choice(list(LEAVES.items()))
    value = rng.choice(WRONG[kind])
    if key.endswith(".depth") and value == 0:  # a linear model
        value = -2
    return f"{key} = {value!r}".replace("\0", ""), written(nested(key, value))


def _unknown_key(rng: random.Random) -> Made:
    section = rng.choice(("", *SECTIONS))
    key = rng.choice(
        ("no_such_key", "alhpa", "widht", "a.b", "0", "null_", "init_arg", "class", "Ключ", "x" * 300, "-", "$ref")
    )
    full = f"{section}.{key}" if section else key
    content = {key: rng.choice((1, "x", [], {}, None, {"a": {"b": 1}}))}
    return f"{full} = {content[key]!r}", written(nested(section, content) if section else content)


def _no_section(rng: random.Random) -> Made:
    section = rng.choice(SECTIONS)
    value = rng.choice((3, 1.5, "text", [], [1], ["a", {"b": 1}], True, "no/such/file.yaml", "/dev/zero", "-"))
    return f"{section} = {value!r}", written(nested(section, value))


def _called(rng: random.Random) -> Made:
    path = rng.choice(EVIL)
    spec = rng.choice(
        (
            {"class_path": path},
            {"class_path": path, "init_args": {"command": "touch touched"}},
            {"class_path": path, "dict_kwargs": {"command": "touch touched", "args": ["touch", "touched"]}},
            path,
        )
    )
    places: dict[str, Callable[[Any], Any]] = {
        "model": lambda spec: {"model": spec},
        "data": lambda spec: {"data": spec},
        "network": lambda spec: nested(f"{_MODEL}.network", spec),
        "loss": lambda spec: nested(f"{_MODEL}.loss", spec),
        "controller": lambda spec: nested(f"{_MODEL}.controller", spec),
        "stop": lambda spec: nested(f"{_MODEL}.stop", spec),
        "logger": lambda spec: {"trainer": {"logger": spec}},
        "loggers": lambda spec: {"trainer": {"logger": [spec]}},
        "callbacks": lambda spec: {"trainer": {"callbacks+": [spec]}},
        "strategy": lambda spec: {"trainer": {"strategy": spec}},
        "plugins": lambda spec: {"trainer": {"plugins": spec}},
        "profiler": lambda spec: {"trainer": {"profiler": spec}},
        "inside": lambda spec: nested(
            f"{_MODEL}.network", {"class_path": "faults_canary.Net", "init_args": {"anything": spec}}
        ),
        "inside a list": lambda spec: nested(
            f"{_MODEL}.network", {"class_path": "faults_canary.Net", "init_args": {"untyped": [0, {"a": spec}]}}
        ),
        "doubled": lambda spec: nested(
            f"{_MODEL}.network", {"class_path": "lazy_lightning.nn.Symmetrized", "init_args": {"network": spec}}
        ),
        "hook": lambda spec: {
            "trainer": {
                "callbacks+": [
                    {"class_path": "pytorch_lightning.callbacks.LambdaCallback", "init_args": {"on_fit_start": spec}}
                ]
            }
        },
    }
    place = rng.choice(list(places))
    if isinstance(spec, str) and place.startswith("inside"):
        spec = {"class_path": path}  # a name alone is a text there
    return f"{place} {spec}", written(places[place](spec))


def _bad_class(rng: random.Random) -> Made:
    place = rng.choice(
        ("model", "data", f"{_MODEL}.network", f"{_MODEL}.loss", f"{_MODEL}.controller", "trainer.logger")
    )
    path = rng.choice(
        ("", ".", "..", "a..b", "no_such_package.X", "torch.nn.NoSuch", "lazy_lightning.nn", "torch", "torch.Tensor",
         "torch.nn.Linear\n", "torch.nn.Linear ", "torch.nn.Linear()", "torch.nn.Linear; import os", "lambda: 0",
         "1.2", "__import__('os')", "\u00e9.\u00fc", 17, None, True, [], ["torch.nn.Linear"], "x" * 5000, "tests.x",
         {"class_path": "torch.nn.Linear"}, "lazy_lightning.cli.program.main"),
    )  # fmt: skip
    return f"{place} class_path {str(path)[:40]!r}", written(nested(place, {"class_path": path}))


def _yaml_text(rng: random.Random) -> Made:
    word = "".join(rng.choices(string.ascii_lowercase, k=4))
    deep = rng.choice((70, 500, 10_000))
    texts: dict[str, str | bytes | Callable[[], str | bytes]] = {
        "unclosed list": "model: [1, 2",
        "unclosed mapping": "model: {a: 1",
        "unclosed quote": f'model: "{word}',
        "tab": "model:\n\tinit_args: 1",
        "colon twice": f"{word}: {word}: 1",
        "unindented": "model:\n  a: 1\n b: 2",
        "two documents": "{}\n---\n{}",
        "key twice": "model:\n  init_args: {alpha: 1.0}\n  init_args: {alpha: 2.0}",
        "top key twice": "trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}",
        "undefined alias": f"model: *{word}",
        "recursive alias": f"model: &{word} {{init_args: *{word}}}",
        "list": f"- {word}",
        "text": f"{word}",
        "number": "17",
        "apply": "model: !!python/object/apply:os.system ['touch touched']",
        "new": "model: !!python/object/new:faults_canary.Canary []",
        "name": "model: {init_args: {network: !!python/name:os.system ''}}",
        "own tag": f"model: !{word} 1",
        "set": "model: !!set {a, b}",
        "binary": "model: {init_args: {loss: !!binary aGluZ2U=}}",
        "NUL": f"model: {word}\0",
        "bell": f"model: {word}\a",
        "latin": b"model: {init_args: {loss: \xe9}}",
        "UTF-16": "model: 1".encode("utf-16"),
        "bytes": bytes(rng.randrange(128, 256) for _ in range(40)),
        "zip": b"PK\x03\x04" + bytes(rng.randrange(256) for _ in range(200)),
        f"lists {deep} deep": "model: " + "[" * deep + "]" * deep,
        f"mappings {deep} deep": "model: " + "{a: " * deep + "}" * deep,
        f"blocks {min(deep, 500)} deep": "".join(" " * i + "a:\n" for i in range(min(deep, 500))),
        "alias bomb": lambda: bomb("[{}]"),
        "merge bomb": lambda: bomb("{{<<: [{}]}}", "{k: 1}"),
        "many values": lambda: "model: [" + "1, " * 150_000 + "1]",
        "large": lambda: "# " + "x" * (5 << 20),
        "digits": f"model: {{init_args: {{seeds: {'9' * 5000}}}}}",
        "list as key": "? [a, b]\n: 1",
        "number as key": "3: 4",
        "null as key": "~: 4",
        "merge of a number": "model: {<<: 3}",
    }
    name = rng.choice(list(texts))
    text = texts[name]
    return name, text() if callable(text) else text


def bomb(form: str, first: str = "[1, 1, 1, 1, 1, 1, 1, 1, 1]") -> str:
    """Nine aliases of nine aliases of nine ..."""
    lines = [f"a: &a {first}"]
    for one, other in itertools.pairwise(string.ascii_lowercase[:20]):
        lines.append(f"{other}: &{other} {form.format(', '.join([f'*{one}'] * 9))}")
    return "\n".join(lines)


KINDS: dict[str, Callable[[random.Random], Made]] = {
    "value": _wrong_value,
    "unknown key": _unknown_key,
    "section": _no_section,
    "code": _called,
    "class": _bad_class,
    "yaml": _yaml_text,
}
