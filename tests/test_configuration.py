"""A configuration as data: what tells two members apart, and what does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.runs import configuration

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load("""
trainer:
  precision: 64-true
  accelerator: auto
  logger: {class_path: pytorch_lightning.loggers.TensorBoardLogger, init_args: {save_dir: runs}}
  callbacks:
    - class_path: lazy_lightning.callbacks.KernelDrift
      init_args: {samples: 10}
    - class_path: lazy_lightning.callbacks.T1
model:
  class_path: lazy_lightning.modules.FlowModule
  init_args:
    network: {class_path: lazy_lightning.nn.FC, init_args: {width: 8, depth: 2}}
    alpha: [0.1, 1.0]
    seeds: 2
    dt: 0.01
    stop: {max_steps: 40}
    chunk_size: null
data:
  class_path: lazy_lightning.data.MNIST
  init_args: {n_train: 40, root: data, download: true}
""")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The configuration with one entry set."""
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    inside: Any = config
    for name in parents:
        inside = inside[int(name) if name.isdigit() else name]
    inside[last] = value
    return config


NO_DIFFERENCE = {
    "model.init_args.alpha": 7.0,
    "model.init_args.seeds": [3, 4],
    "model.init_args.chunk_size": 10,
    "data.init_args.root": "/somewhere/else",
    "data.init_args.download": False,
    "trainer.logger": False,
    "trainer.accelerator": "gpu",
    "trainer.max_time": "00:01:00:00",
    "trainer.max_epochs": None,
    "trainer.max_steps": -1,
    "ckpt_path": "other.ckpt",
    "data.init_args.n_val": 0,
    "data.init_args.standardise_targets": False,
}
DIFFERENCE = {
    "model.init_args.dt": 0.02,
    "model.init_args.stop.max_steps": 41,
    "model.init_args.network.init_args.width": 9,
    "model.init_args.network.class_path": "lazy_lightning.nn.CNN",
    "model.class_path": "lazy_lightning.modules.KernelModule",
    "data.init_args.n_train": 41,
    "data.class_path": "lazy_lightning.data.FashionMNIST",
    "trainer.precision": "32-true",
    "trainer.callbacks.0.init_args": {"samples": 11},
    "trainer.callbacks": [],
    "trainer.max_epochs": 20,
    "trainer.max_steps": 100,
    "trainer.accumulate_grad_batches": 2,
    "trainer.gradient_clip_val": 1.0,
    "data.init_args.batch_size": 10,
    "data.init_args.n_val": 10,
    "data.init_args.standardise_targets": True,
    "trainer.limit_train_batches": 2,
    "trainer.overfit_batches": 1,
    "trainer.min_epochs": 3,
    "trainer.min_steps": 30,
    "trainer.fast_dev_run": True,
    "trainer.plugins": ["my.Precision"],
    "trainer.reload_dataloaders_every_n_epochs": 1,
    "seed_everything": 3,
}
AT_THEIR_DEFAULT = {
    "trainer.limit_train_batches": (None, 1.0),
    "trainer.overfit_batches": (0.0,),
    "trainer.gradient_clip_algorithm": (None, "norm"),
    "trainer.min_epochs": (None,),
    "trainer.fast_dev_run": (False,),
    "trainer.plugins": (None,),
    "trainer.deterministic": (None, True),
    "trainer.reload_dataloaders_every_n_epochs": (0,),
    "seed_everything": (False, None),
}
"""Values that leave the result of a run as it is without the key."""


@pytest.mark.parametrize("path", NO_DIFFERENCE)
def test_the_family_does_not_depend_on(path: str) -> None:
    assert configuration.family(changed(path, NO_DIFFERENCE[path])) == configuration.family(CONFIG)


@pytest.mark.parametrize("path", DIFFERENCE)
def test_the_family_depends_on(path: str) -> None:
    assert configuration.family(changed(path, DIFFERENCE[path])) != configuration.family(CONFIG)


@pytest.mark.parametrize("path", AT_THEIR_DEFAULT)
def test_a_key_at_its_default_does_not_enter_the_hash(path: str) -> None:
    ids = {configuration.family(changed(path, value)) for value in AT_THEIR_DEFAULT[path]}
    assert ids == {configuration.family(CONFIG)}


def test_one_batch_is_not_all_batches() -> None:
    one, all_of_them = (configuration.family(changed("trainer.limit_train_batches", value)) for value in (1, 1.0))
    assert one != all_of_them


def test_the_clipping_algorithm_counts_where_gradients_are_clipped() -> None:
    clipped = changed("trainer.gradient_clip_val", 1.0)
    by_value = {**clipped, "trainer": {**clipped["trainer"], "gradient_clip_algorithm": "value"}}
    assert configuration.family(by_value) != configuration.family(clipped)
    assert configuration.family(changed("trainer.gradient_clip_algorithm", "value")) == configuration.family(CONFIG)


def test_every_callback_of_lightning_counts() -> None:
    """A run keeps two of one class: the first one may have ended it."""
    stopping = [
        {"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": monitor}}
        for monitor in ("train/loss", "test/loss", "test/error")
    ]
    first, other = (
        changed("trainer.callbacks", [*CONFIG["trainer"]["callbacks"], stopping[i], stopping[2]]) for i in (0, 1)
    )
    assert configuration.family(first) != configuration.family(other)


def test_the_root_of_data_of_ones_own_counts() -> None:
    own = changed("data.class_path", "my_package.Images")
    assert configuration.family(own) != configuration.family(
        {**own, "data": {**own["data"], "init_args": {**own["data"]["init_args"], "root": "elsewhere"}}}
    )


def shuffled(value: Any, random: Any) -> Any:
    """The same with the keys of all mappings in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], random) for key in random.sample(list(value), len(value))}
    return [shuffled(part, random) for part in value] if isinstance(value, list) else value


@given(st.randoms())
def test_ids_do_not_depend_on_the_order_of_keys(random: Any) -> None:
    assert configuration.family(shuffled(CONFIG, random)) == configuration.family(CONFIG)


def test_ids_do_not_depend_on_the_order_of_observers() -> None:
    drift, t1 = CONFIG["trainer"]["callbacks"]
    ids = {configuration.family(changed("trainer.callbacks", some)) for some in ([drift, t1], [t1, drift])}
    assert ids == {configuration.family(CONFIG)}
    # of two of a class a run keeps the later one
    other = {"class_path": drift["class_path"], "init_args": {"samples": 99}}
    assert configuration.family(changed("trainer.callbacks", [other, drift, t1])) in ids
    assert configuration.family(changed("trainer.callbacks", [drift, other, t1])) not in ids


def test_ids_do_not_depend_on_the_way_through_a_file() -> None:
    for written in (yaml.safe_dump(CONFIG), yaml.safe_dump(CONFIG, sort_keys=False), json.dumps(CONFIG)):
        assert configuration.family(yaml.safe_load(written)) == configuration.family(CONFIG)


def test_ids_are_what_they_were() -> None:
    """Stores on people's disks hold these: a change of the hash trains everything again."""
    family = configuration.family(CONFIG)
    point = configuration.point(family, 0.1)
    ids = (family, point, configuration.member(point, 1), configuration.run(family, [0.1, 1], [0, 1]))
    assert ids == ("e8c01ebd7992", "9ca23ea6603f", "e7738ab830c1", "270f91a722b1")


IDS_OF_0_1_0 = {
    "cifar_cnn": "cf63973cbe92",
    "cifar_cnn_minibatch": "4e4b025cf00e",
    "cifar_fc": "e0921dcfc283",
    "cifar_resnet": "f2f04fb127af",
    "cifar_vgg": "93601ccf024d",
    "cifar_wideresnet": "bf5d739c8975",
    "cylinder_fc": "2ad5dae247fc",
    "digits_fc": "1d1b2b89afb7",
    "digits_mean_field_fc": "d84b760b0041",
    "digits_minibatch": "06b7c6c981e1",
    "digits_multiclass_fc": "2d9afdfc4f08",
    "fashion_cnn": "56de909e4e0d",
    "fashion_fc": "be4737ca5497",
    "mnist_parity_fc": "2334b5836d13",
    "pca_mnist_fc": "f8af107cee0e",
    "sphere_fc": "48a2acec92d4",
    "stripe_fc": "98f29a99966d",
    "teacher_plane": "92406213a269",
    "teacher_student": "4dcde5d4b770",
    "teacher_student_flow": "b93dfe551539",
}
"""Families of the bundled configurations as they stand in their files."""
RUNS_OF_0_1_0 = {"flow": "ad2db470ffa8", "kernel": "d7c4ac3b43d0", "scaled": "142842c7d9a7"}
"""Families of runs whose resolved ``config.yaml`` was saved by version 0.1.0."""


@pytest.mark.parametrize("name", IDS_OF_0_1_0)
def test_bundled_configurations_keep_their_ids(name: str) -> None:
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert configuration.family(config) == IDS_OF_0_1_0[name]


@pytest.mark.parametrize("name", RUNS_OF_0_1_0)
def test_runs_of_0_1_0_keep_their_ids(name: str) -> None:
    config = configuration.load_config(ROOT / "tests" / "data" / "runs_of_0_1_0" / name)
    assert configuration.family(config) == RUNS_OF_0_1_0[name]


def test_members_and_points() -> None:
    assert configuration.members(CONFIG) == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert configuration.members({}) == [(1.0, 0)]
    assert configuration.members({"model": {"init_args": {"alpha": 2, "seeds": [4]}}}) == [(2.0, 4)]
    assert configuration.point("f", 0.1 + 0.2) == configuration.point("f", 0.3)
    assert configuration.point("f", 0.3) != configuration.point("f", 0.300001)
    assert configuration.member("p", 0) != configuration.member("p", 1)
    assert configuration.run("f", [1, 2], [0]) != configuration.run("f", [1], [0, 2])


def test_flattened() -> None:
    flat = configuration.flatten(CONFIG)
    assert flat["model"] == "FlowModule"
    assert flat["model.network"] == "FC"
    assert flat["model.network.width"] == 8
    assert flat["model.stop.max_steps"] == 40
    assert flat["model.alpha"] == "[0.1, 1.0]"
    assert flat["model.chunk_size"] is None
    assert flat["data.n_train"] == 40
    assert flat["trainer.precision"] == "64-true"
    assert not any(key.startswith("trainer.c") for key in flat)


def test_a_learnt_kernel_belongs_to_the_networks_and_not_to_a_file(tmp_path: Path) -> None:
    network = configuration.family(CONFIG)
    kernel = changed("model.init_args.checkpoint", str(tmp_path / "old/run/checkpoint.ckpt"))
    moved = changed("model.init_args.checkpoint", "run/checkpoint.ckpt")
    assert configuration.family(kernel, network) == configuration.family(moved, network)
    assert configuration.family(kernel) != configuration.family(moved)
    # the run of the networks is found beside this one, wherever the store has been moved to
    for name, content in (("run", CONFIG), ("kernel", kernel)):
        (tmp_path / "new" / name).mkdir(parents=True)
        (tmp_path / "new" / name / "config.yaml").write_text(yaml.safe_dump(content))
    assert configuration.source_family(kernel, tmp_path / "new/kernel") == network
    assert configuration.source_family(CONFIG, tmp_path / "new/run") is None
    assert configuration.source_family(changed("model.init_args.checkpoint", "gone/x.ckpt"), tmp_path / "new/k") is None
