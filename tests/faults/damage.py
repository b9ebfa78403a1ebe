"""Damage to the bytes of a file of any format, and values of other types; everything is drawn from a generator."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any


def _flip(raw: bytes, rng: random.Random) -> bytes:
    content = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _flip_near_an_end(raw: bytes, rng: random.Random) -> bytes:
    """Where formats have their headers."""
    content, place = bytearray(raw), rng.randrange(min(len(raw), 400))
    content[rng.choice((place, -1 - place))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.choice((0, 1, 4, rng.randrange(len(raw)), len(raw) - 1 - rng.randrange(min(len(raw), 40))))]


def _blank(raw: bytes, rng: random.Random) -> bytes:
    """A block of a disk that was never written."""
    begin, length = rng.randrange(len(raw)), rng.choice((1, 16, 512))
    return raw[:begin] + bytes(len(raw[begin : begin + length])) + raw[begin + length :]


def _lose(raw: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(raw))
    return raw[:begin] + raw[begin + rng.choice((1, 7, 64)) :]


def _insert(raw: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(raw))
    return raw[:begin] + rng.randbytes(rng.choice((1, 7, 64))) + raw[begin:]


def _noise(raw: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\0" * 100, b"PK\x03\x04", b"PAR1PAR1", b"{", b"\x80\x02")) + rng.randbytes(
        rng.choice((0, 50))
    )


def _text(raw: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        ("", "hello\n", "<html><body>404 Not Found</body></html>", "version https://git-lfs\n", "ü")
    ).encode()


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bits flipped": _flip,
    "bit flipped in a header": _flip_near_an_end,
    "cut off": _cut,
    "zeros": _blank,
    "bytes lost": _lose,
    "bytes inserted": _insert,
    "noise": _noise,
    "text": _text,
}
VALUES: tuple[Any, ...] = (
    None, True, -1, -(2**70), 2**63, float("nan"), float("-inf"), "", "text", "../victim", "=1+1", "[/red]\x1b[2J", [],
    [1, [2]], {}, {"a": {"b": 1}},
)  # fmt: skip


def damaged(raw: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A name of the damage, and the bytes after it."""
    name = rng.choice(list(BYTES))
    return name, BYTES[name](raw, rng)


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every part of nested dictionaries and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, part in items for place in ((*above, key), *places(part, (*above, key)))]


def change(content: Any, place: tuple[Any, ...], rng: random.Random, values: tuple[Any, ...] = VALUES) -> str:
    """Removes one part, or puts a value of another type there; returns what was done."""
    for key in place[:-1]:
        content = content[key]
    if rng.random() < 0.3:
        del content[place[-1]]
        return f"no {place}"
    was = content[place[-1]]
    value = rng.choice([v for v in values if type(v) is not type(was)])
    content[place[-1]] = value
    return f"{place} = {value!r}"[:200]
