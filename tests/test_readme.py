"""What the README and the pages of the documentation state: Python blocks are run, YAML blocks are read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import built
from made_runs import made_kernels, made_sweep

from lazy_lightning.cli import main
from lazy_lightning.cli.bundled import bundled_configs, find_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MINI_BATCHES = ROOT / "docs/tutorials/mini_batches.md"
PANDAS = ROOT / "docs/tutorials/runs_in_pandas.md"


def test_flow_without_a_trainer():
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "MomentumFlow" in b)
    names: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        exec(block, names)
    assert names["flow"].flow_state.t.item() == 5.0
    assert names["kernel"].shape == (20, 20)


def blocks(language: str, page: Path = ROOT / "README.md") -> list[str]:
    """The fenced blocks of one page; those that include a tutorial's script are run by test_documentation.py."""
    found = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for block in found if not block.startswith("--8<--")]


def test_python_blocks_as_pasted_warn_of_nothing(tmp_path):
    """In a process of its own, where torch loads its forward-mode rules for the first time; no warning is hidden."""
    pasted = blocks("python")
    assert len(pasted) == 1
    assert any("empirical_ntk" in block for block in pasted)
    (tmp_path / "pasted.py").write_text("\n".join(pasted))
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    given = [sys.executable, "-W", "error", "pasted.py"]
    done = subprocess.run(
        given, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_python_block_of_the_runs_page_as_pasted(tmp_path, monkeypatch):
    """In a folder with the sweep that it names."""
    made_sweep(tmp_path / "runs/phase_diagram", widths=(30, 100), scales=(10.0, 1000.0), seeds=2)
    monkeypatch.chdir(tmp_path)
    pasted = re.findall(r"```python\n(.*?)```", (ROOT / "docs/runs.md").read_text(), re.DOTALL)
    assert len(pasted) == 1
    names: dict[str, object] = {}
    exec(pasted[0], names)
    assert len(names["lazy"]) == 2 * 2


def test_imports_of_the_api_page():
    exec("\n".join(blocks("python", ROOT / "docs/api/index.md")), {})


def test_other_pages_have_no_python_blocks():
    """One that comes is to be run by a test."""
    pages = {path.name for path in PAGES if blocks("python", path)}
    assert pages == {"README.md", "runs.md", "runs_in_pandas.md", "index.md"}


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks("yaml", page)], ids=lambda b: b.split("\n")[0])
def test_yaml_block_is_yaml(block):
    assert yaml.safe_load(block)


def test_mini_batch_block_as_pasted(tmp_path, monkeypatch):
    """The whole configuration is built; nothing is downloaded or trained."""
    path = tmp_path / "pasted.yaml"
    path.write_text(next(b for b in blocks("yaml", MINI_BATCHES) if "lr_scheduler" in b))
    cli = built(["fit", "--config", str(path)], monkeypatch)
    assert cli.model.companions == ("linearized", "frozen_activations")
    assert (cli.datamodule.n_train, cli.datamodule.batch_size) == (50000, 128)


NAMED = {name for page in PAGES for name in re.findall(r"--(?:config|sweep) ((?:\w+/)*\w+\.yaml)", page.read_text())}
OF_THE_USER = {"my.yaml", "own.yaml", "houses.yaml"}


@pytest.mark.parametrize("name", sorted(NAMED - OF_THE_USER))
def test_configuration_is_there(name):
    if not name.startswith("RUN"):
        assert find_config(name).is_file()


def test_every_configuration_is_listed():
    page = (ROOT / "docs/configurations.md").read_text()
    listed = set(re.findall(r"`((?:overlays/|callbacks/|sweeps/)?\w+)`", page.split("| configuration | contents |")[1]))
    assert {name.removesuffix(".yaml") for name in bundled_configs()} <= listed


def test_table_of_runs_mixes_nothing(tmp_path, monkeypatch):
    """Of a folder with two widths, two sizes of the training set, kernels and failures, seeds alone are averaged."""
    for n_train in (100, 200):
        folder = made_sweep(
            tmp_path / "runs" / str(n_train), widths=(30, 100), scales=(1.0, 10.0), seeds=3, failed=(1,)
        )
        for path in folder.glob("*/config.yaml"):
            config = yaml.safe_load(path.read_text())
            config["data"]["init_args"]["n_train"] = n_train
            path.write_text(yaml.safe_dump(config))
    made_kernels(tmp_path / "runs" / "kernels", widths=(30, 100), seeds=3)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks("python", PANDAS)[0], names)
    assert len(names["means"]) == 2 * 2 * 2
    for _, members in names["alike"]:
        told_apart = members[["model", "h", "data.n_train", "alpha", "status"]].drop_duplicates()
        assert len(told_apart) == 1
        assert (told_apart["model"] == "network").all()
        assert members["seed"].is_unique
    assert names["average"].shape == (40,)


def test_table_of_runs(tmp_path, monkeypatch):
    """The block that loads runs, after a short one of the digits."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml"]) == 0
    names: dict[str, object] = {}
    exec(blocks("python", PANDAS)[0], names)
    assert len(names["runs"]) == 4
