"""Learning curves of many alphas: a colour bar tells them, where a legend would be higher than the figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lazy_lightning.figures.learning_curves import learning_curves


@pytest.mark.parametrize(("count", "bar"), [(1, False), (10, False), (11, True), (50, True)])
def test_many_alphas_have_a_colour_bar(count: int, bar: bool) -> None:
    rows = [
        {"alpha": float(alpha), "seed": 0, "t": t, "test/loss": 1 / t, "train/loss": 1 / t}
        for alpha in np.geomspace(1e-3, 1e3, count)
        for t in (0.1, 1.0, 10.0)
    ]
    figure = learning_curves(pd.DataFrame(rows))
    assert len(figure.axes) == 1 + bar
    assert (figure.axes[0].get_legend() is None) == bar
