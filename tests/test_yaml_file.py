"""The reader of YAML: plain data alone, within limits, and without waiting for anything."""

from __future__ import annotations

import contextlib
import itertools
import os
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.runs.yaml_file import Limits, YAMLFileError, parse_yaml, read_yaml

LETTERS = string.ascii_lowercase
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(LETTERS)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "\n".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in itertools.pairwise(LETTERS)
)
REFUSED = {
    "a: !!int abc": "'abc' is not of the type !!int",
    "a: !!float x": "'x' is not of the type !!float",
    "a: !!bool x": "'x' is not of the type !!bool",
    "a: " + "9" * 5000: "is not of the type !!int",
    "a: !!python/object/apply:os.system [id]": "the tag !!python/object/apply:os.system is not plain data",
    "a: !!python/name:os.system": "is not plain data",
    "a: !!binary xx": "the tag !!binary is not plain data",
    "a: !!timestamp abc": "is not plain data",
    "a: !!set {b}": "the tag !!set is not plain data",
    "a: !own 1": "the tag !own is not plain data",
    "a: 1\nb: 2\na: 3": "line 3: this is not valid YAML (the key 'a' is given twice, first in line 1)",
    "{1: a, 0x1: b}": "the key '0x1' is given twice",
    "x: &x {a: 1}\ny: {<<: *x, <<: *x}": "the key '<<' is given twice",
    "{<<: 1}": "expected a mapping or list of mappings for merging",
    "? [a]\n: 1": "a key is a list or a mapping",
    "a: &a [*a]": "the alias *a is inside of the node that it refers to",
    "a: *b": "found undefined alias",
    "a: 1\n---\nb: 2": "another document",
    "a:\n\tb: 1": "line 2: this is not valid YAML",
    "a: \x00": "it holds a control character",
    "a: \ud800": "it holds a control character",
    "[" * 10_000 + "]" * 10_000: "nest",
    "{a: " * 10_000 + "}" * 10_000: "more than 64 nested lists and mappings",
    "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60: "more than 64 nested",
    BOMB: "more than 100000 values",
    MERGE_BOMB: "more than 100000 values",
    "[" + "1, " * 200_000 + "1]": "more than 100000 values",
    "a: " + "x" * (5 << 20): "more than 4 MiB of text",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=[text[:30] for text in REFUSED])
def test_what_is_not_plain_data_within_limits_is_refused(text: str, said: str) -> None:
    with pytest.raises(YAMLFileError) as caught:
        parse_yaml(text, "own.yaml")
    sentence = str(caught.value)
    assert said in sentence
    assert sentence.startswith("own.yaml")
    assert "\n" not in sentence


def test_scalars_are_those_of_jsonargparse() -> None:
    text = "[1e3, 1e-3, .5, 1., 010, 0x1f, 1_000, .inf, ~, 1.5e3, 2020-01-01, =, yes, 'yes', !!str 1, !!float 1]"
    expected = [1000.0, 0.001, 0.5, 1.0, 8, 31, 1000, float("inf"), None, 1500.0, "2020-01-01", "=", True]
    assert parse_yaml(text) == [*expected, "yes", "1", 1.0]


def test_merge_keys_and_aliases_within_limits() -> None:
    text = "x: &x {a: 1}\nw: &w {<<: *x, b: 2}\ny: {<<: [*x, *w], a: 3}\nz: [*x, *x]"
    w, x = {"a": 1, "b": 2}, {"a": 1}
    assert parse_yaml(text) == {"x": x, "w": w, "y": {"a": 3, "b": 2}, "z": [x, x]}


def test_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [2]\r\n")
    assert read_yaml(path) == {"a": 1, "b": [2]}
    path.write_bytes(b"")
    assert read_yaml(path) is None


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("a: \xe9".encode("latin-1"))
    (tmp_path / "wide").write_bytes("a: 1".encode("utf-16"))
    (tmp_path / "large").write_bytes(b"#" * (5 << 20))
    os.mkfifo(tmp_path / "fifo")
    said = {"latin": "byte 3 is not UTF-8", "wide": "not UTF-8", "large": "larger than 4 MiB", "fifo": "a pipe"}
    for name, what in said.items():
        with pytest.raises(YAMLFileError, match=what):
            read_yaml(tmp_path / name)
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(YAMLFileError, match="expected a YAML file"):
            read_yaml(path)


def test_limits_can_be_chosen() -> None:
    with pytest.raises(YAMLFileError, match="more than 2 nested"):
        parse_yaml("[[[1]]]", limits=Limits(depth=2))
    assert parse_yaml("[[1]]", limits=Limits(depth=2)) == [[1]]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(LETTERS + " -.:{}[]'#&*!%"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_what_is_dumped_is_read_back(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YAMLFileError):  # and nothing else
        parse_yaml(text)
