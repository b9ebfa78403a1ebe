"""What the README says works."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from lazy_lightning.bundled import bundled_configs, find_config

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_flow_without_a_trainer():
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "MomentumFlow" in b)
    names: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        exec(block, names)
    assert names["flow"].flow.t.item() == 5.0


@pytest.mark.parametrize("name", re.findall(r"--config ((?:\w+/)*\w+\.yaml)", README))
def test_configuration_is_there(name):
    if not name.startswith("RUN"):
        assert find_config(name).is_file()


def test_every_configuration_is_listed():
    listed = set(re.findall(r"`((?:overlays/|callbacks/)?\w+)`", README.split("| configuration | what |")[1]))
    assert {name.removesuffix(".yaml") for name in bundled_configs()} <= listed


def test_columns_of_the_curves(tmp_path):
    """The columns that the README selects are those that the digits run writes."""
    from fits import fit

    wanted = re.findall(r'"([\w/]+)"', re.search(r"\.last\(\)\[\[(.*?)\]\]", README)[1])
    table = fit(tmp_path).table
    assert isinstance(table, pd.DataFrame)
    assert set(wanted) <= set(table.columns)
