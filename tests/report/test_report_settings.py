"""Which members a figure may show together."""

import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.report.settings import format_value, is_compared, settings

NONE = float("nan")


def table(*rows, **shared):
    common = {"model": "network", "alpha": 1.0, "seed": 0, "h": 100, "model.network.width": 100, **shared}
    return pd.DataFrame([{**common, **row} for row in rows])


def titles(runs):
    return [(setting.title, len(setting.runs)) for setting in settings(runs)]


def test_members_of_one_sweep_are_one_setting_without_a_title():
    rows = [
        {"h": h, "model.network.width": h, "alpha": alpha, "seed": seed}
        for h, alpha, seed in itertools.product((30, 100), (0.1, 10.0), (0, 1))
    ]
    runs = table(*rows, **{"data": "Digits", "data.n_train": 100})
    (only,) = settings(runs)
    assert only.title == ""
    pd.testing.assert_frame_equal(only.runs, runs)


def test_titles_name_what_differs_and_nothing_else():
    rows = [{"model.network.depth": depth, "data.n_train": n} for depth in (10, 3) for n in (1000.0, 50.0)]
    runs = table(*rows, *rows, **{"data": "Digits", "model.tau": 0.0})
    assert titles(runs) == [  # numbers in their order, not in that of their letters
        ("model.network.depth = 3, data.n_train = 50", 2),
        ("model.network.depth = 3, data.n_train = 1000", 2),
        ("model.network.depth = 10, data.n_train = 50", 2),
        ("model.network.depth = 10, data.n_train = 1000", 2),
    ]


def test_titles_do_not_list_what_only_one_class_has():
    runs = pd.DataFrame(
        {
            "model": "network",
            "alpha": 1.0,
            "model.network": ["CNN", "CNN", "FC", "FC"],
            "model.network.stages": [2.0, 2.0, None, None],
            "model.network.activation": ["relu", "swish", "relu", "relu"],
            "model.network.depth": [None, None, 3.0, 3.0],
        }
    )
    assert [setting.title for setting in settings(runs)] == [
        "model.network = CNN, model.network.activation = relu",
        "model.network = CNN, model.network.activation = swish",
        "model.network = FC, model.network.activation = relu",
    ]


def test_an_unset_value_is_a_value():
    assert titles(table({"data.pca": 10}, {"data.pca": None}, {"data.pca": NONE})) == [
        ("data.pca = 10", 1),
        ("data.pca = none", 2),
    ]


@pytest.mark.parametrize(
    "key", ["model.chunk_size", "data.root", "data.download", "model.network.width", "model.network.base.width"]
)
def test_what_changes_no_result_or_is_the_width_does_not_cut(key):
    assert len(settings(table({key: 1}, {key: 2}))) == 1


def test_kernels_go_with_their_networks():
    depths = [{"model.network.depth": depth} for depth in (2, 3)]
    kernels = [{**row, "model": "kernel at init", "model.at": "init", "model.layers": "last"} for row in depths]
    found = settings(table(*depths, *kernels))
    assert [(s.title, s.runs["model"].tolist()) for s in found] == [
        ("model.network.depth = 2", ["network", "kernel at init"]),
        ("model.network.depth = 3", ["network", "kernel at init"]),
    ]


def test_kernels_with_a_limit_of_their_own_go_with_the_networks_too():
    kernel = {"model": "kernel at end", "model.stop": "StoppingCriteria", "model.stop.max_steps": 100}
    (only,) = settings(table({"model.network.depth": 2}, {"model.network.depth": 2, **kernel}))
    assert only.title == ""
    assert len(only.runs) == 2


def test_kernels_without_networks_or_with_two_to_choose_from_stand_alone():
    kernel = {"model": "kernel at init", "model.dt": 0.5}
    assert titles(table({"data.n_train": 10}, {**kernel, "data.n_train": 20})) == [
        ("data.n_train = 10, model.dt = none", 1),
        ("data.n_train = 20, model.dt = 0.5", 1),
    ]
    assert len(settings(table({"model.dt": 0.1}, {"model.dt": 0.2}, kernel))) == 3


def test_no_configuration_at_all_is_one_setting():
    assert titles(pd.DataFrame({"model": ["network", "network"], "alpha": [0.1, 1.0]})) == [("", 2)]


def test_what_is_compared():
    columns = ["data", "data.n_train", "model.loss", "model.network", "trainer.precision"]
    assert all(map(is_compared, columns))
    others = ["model", "model.at", "model.checkpoint", "alpha", "h", "test/error", "family", "wall_seconds"]
    assert not any(map(is_compared, others))


def test_values_are_written_as_one_gives_them():
    values = [0.1 + 0.2, 100, 1e-07, None, False, "[1, 2]"]
    assert [format_value(value) for value in values] == ["0.3", "100", "1e-07", "none", "false", "[1, 2]"]


@given(st.lists(st.tuples(st.sampled_from([1, 2, None]), st.sampled_from(["a", "b"])), min_size=1, max_size=12))
def test_settings_part_the_rows(values):
    runs = table(*[{"data.n": n, "data.kind": kind} for n, kind in values])
    found = settings(runs)
    assert sorted(itertools.chain(*(s.runs.index for s in found))) == list(runs.index)
    assert len({s.title for s in found}) == len(found) == len(set(values))
