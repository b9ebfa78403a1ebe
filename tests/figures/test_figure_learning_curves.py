"""Learning curves: whose lines, how many seeds, and percents that read as percents."""

import numpy as np
import pandas as pd
import pytest

from lazy_lightning.figures.learning_curves import learning_curves, single_panels


def curves(seeds=2, errors=(0.5, 0.2)):
    t = np.array([0.0, 1.0, 10.0, 100.0])
    parts = [
        pd.DataFrame(
            {
                "alpha": alpha,
                "seed": seed,
                "t": t * alpha,
                "test/loss": np.geomspace(1.0, 0.1, 4),
                "train/loss": np.geomspace(1.0, 1e-3, 4),
                "test/error": np.geomspace(*errors, 4),
                "displacement/total": [np.nan, 1e-3, 1e-2, 1e-1],
            }
        )
        for alpha in (0.1, 10.0)
        for seed in range(seeds)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("seeds", "told"), [(1, "1 seed each"), (2, "2 seeds each")])
def test_a_line_a_member_and_quantity(seeds, told):
    figure = learning_curves(curves(seeds))
    figure.draw_without_rendering()
    loss, error, moved = figure.axes
    assert [len([line for line in axis.lines if len(line.get_xdata()) == 3]) for axis in (loss, error, moved)] == [
        4 * seeds,  # test and train
        2 * seeds,
        2 * seeds,
    ]
    assert loss.get_legend().get_title().get_text() == told


@pytest.mark.parametrize(("errors", "some"), [((0.5, 0.2), {"20", "40"}), ((0.5, 1e-3), {"0.1", "1", "10"})])
def test_percents_are_no_powers_of_ten(errors, some):
    axis = learning_curves(curves(errors=errors)).axes[1]
    axis.figure.draw_without_rendering()
    low, high = axis.get_ylim()
    labels = {t.get_text() for t in (*axis.get_yticklabels(), *axis.get_yticklabels(minor=True))} - {""}
    assert some <= labels
    assert all(low / 20 < float(label) < high * 20 for label in labels)


def test_single_panels_have_the_lines_of_the_figure_and_a_legend_each():
    figure, panels = learning_curves(curves()), single_panels(curves())
    assert list(panels) == ["loss", "error", "displacement"]
    for whole, panel in zip(figure.axes, panels.values(), strict=True):
        (axis,) = panel.axes
        shown = [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata()) == 3]
        assert shown == [line.get_xydata().tolist() for line in whole.lines if len(line.get_xdata()) == 3]
        assert {text.get_text() for text in axis.get_legend().get_texts()} == {r"$\alpha = 0.1$", r"$\alpha = 10$"}
