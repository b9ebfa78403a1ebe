from __future__ import annotations

import pytest
import torch

from lazy_lightning.data.labels import LabelRule, label
from lazy_lightning.errors import ConfigError, DataError, LazyLightningError

CLASSES = torch.tensor([4, 0, 1, 9, 4, 7, 0])
NAMES = {"zero": 0, "one": 1, "four": 4, "seven": 7, "nine": 9, "ten": 10}


def test_parity_is_of_the_index_and_not_of_the_number() -> None:
    # Sorted classes 0, 1, 4, 7, 9 have indices 0..4.
    signs = {0: 1, 1: -1, 4: 1, 7: -1, 9: 1}
    labelled = label(CLASSES, "parity")
    assert labelled.y.tolist() == [signs[int(c)] for c in CLASSES]
    assert torch.equal(label(CLASSES, signs).y, labelled.y)
    assert labelled.y.dtype == torch.float64
    assert (labelled.num_outputs, labelled.task) == (1, "binary")
    assert torch.equal(labelled.keep, torch.arange(7))


def test_multiclass_is_reindexed() -> None:
    labelled = label(CLASSES, "multiclass")
    assert labelled.y.tolist() == [2, 0, 1, 4, 2, 3, 0]
    assert labelled.y.dtype == torch.int64
    assert (labelled.num_outputs, labelled.task) == (5, "multiclass")


@pytest.mark.parametrize(
    "rule",
    [
        [4, 0],
        ["four", "zero"],
        ["4", 0],
        {0: -1, 1: 0, 4: 1, 7: 0, 9: 0},
        {"zero": -1, "1": 0, "four": 1, 7: 0, "nine": 0},
    ],
)
def test_pairs_and_maps_keep_the_classes_with_a_sign(rule: LabelRule) -> None:
    labelled = label(CLASSES, rule, NAMES)
    assert labelled.keep.tolist() == [0, 1, 4, 6]
    assert labelled.y.tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ("odd", ConfigError, r"must be 'parity', 'multiclass', 'regression', a pair .* got 'odd'"),
        (None, ConfigError, r"labels must be .* got None"),
        ([4], ConfigError, r"two different classes, got \[4\]"),
        ([4, "four"], ConfigError, r"two different classes, got \[4, 'four'\]"),
        ([4, 5], DataError, r"class 5, but the data hold only the classes \[0, 1, 4, 7, 9\]"),
        (["four", "ten"], DataError, r"class 'ten', but the data hold only"),
        (["four", "cat"], DataError, r"class 'cat', which is unknown: the names are zero, one"),
        ({0: 2, 1: -1, 4: 1, 7: 1, 9: 1}, ConfigError, r"maps class 0 to 2, but a sign is \+1 or -1"),
        ({0: 1, 1: -1, 4: 1}, DataError, r"no sign to the classes \[7, 9\] .* map them to 0"),
        ({0: 1, 1: 1, 4: 0, 7: 0, 9: 0}, ConfigError, r"must give \+1 to some class and -1 to another"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule: LabelRule, error: type[LazyLightningError], message: str) -> None:
    with pytest.raises(error, match=message):
        label(CLASSES, rule, NAMES)


def test_names_where_the_source_has_none_and_a_single_class() -> None:
    with pytest.raises(DataError, match="this source has no class names, give a number"):
        label(CLASSES, ["cat", "dog"])
    with pytest.raises(DataError, match=r"at least two classes, but the data hold only \[3\]"):
        label(torch.tensor([3, 3]), "parity")
