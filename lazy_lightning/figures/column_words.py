"""What a column of the table of runs is, in words, and which preset of observers measures it."""

from __future__ import annotations

from typing import NamedTuple


class _Measured(NamedTuple):
    """Columns that begin alike."""

    start: str
    words: str
    preset: str | None
    """A file of ``callbacks/``; None for what no preset adds."""


_KNOWN = (
    _Measured("kernel_drift/", "the drift of the tangent kernel", "ntk"),
    _Measured("kernel_alignment", "the alignment of the tangent kernel with the one at w0", "ntk"),
    _Measured("kernel_", "the spectrum of the tangent kernel", "ntk"),
    _Measured("label_alignment", "the alignment of the tangent kernel with the labels", "ntk"),
    _Measured("t1/", "the time t1 at which a network leaves its tangent space", "t1"),
    _Measured("t_lazy/", "the time scale of lazy training", "t1"),
    _Measured("tangent_departure", "the departure from the linearisation", "tangent"),
    _Measured("displacement/", "the displacement of the weights", "displacement"),
    _Measured("dw_", "the change of the weights by layer", "displacement"),
    _Measured("activation_stability/", "the share of activations that choose as at w0", "stability"),
    _Measured("activation_velocity/", "the speed of the preactivations", "activation"),
    _Measured("activation_", "the drift of the preactivations", "activation"),
    _Measured("laziness", "the laziness index", "laziness"),
    _Measured("path_distance/", "the distance from the path of the linearisation", "laziness"),
    _Measured("linearized/", "the error of the linearisation", None),
    _Measured("frozen_activations/", "the error with frozen activations", None),
    _Measured("population/", "the population loss", None),
    _Measured("train/error", "the training error", None),
    _Measured("train/loss", "the training loss", None),
    _Measured("test/error", "the test error", None),
    _Measured("test/loss", "the test loss", None),
    _Measured("test/output_rms", "the size of the outputs", None),
)
"""The first whose start fits is meant."""


def column_words(column: str) -> str:
    """What a column measures; its own name where there are no words for it.

    >>> column_words("kernel_drift/total"), column_words("my_observer/x")
    ('the drift of the tangent kernel', 'my_observer/x')
    """
    known = _known(column)
    return column if known is None else known.words


def not_measured(column: str) -> str:
    """That no member has measured a column, and what to do.

    >>> not_measured("kernel_drift/total")
    'the drift of the tangent kernel was not measured: add callbacks/ntk.yaml to the configuration'
    """
    known = _known(column)
    if known is None or known.preset is None:
        return f"{column_words(column)} was not measured: these runs were made without it"
    return f"{known.words} was not measured: add callbacks/{known.preset}.yaml to the configuration"


def _known(column: str) -> _Measured | None:
    return next((known for known in _KNOWN if column.startswith(known.start)), None)
