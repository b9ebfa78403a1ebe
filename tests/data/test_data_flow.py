"""The base class: setup, loaders, resumption, random state, command line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser, Namespace

import lazy_lightning.data
from lazy_lightning.data import Digits, FlowData, Stripe
from lazy_lightning.data.bursts import BurstLoader
from lazy_lightning.errors import ConfigError


def test_digits_can_be_used_up() -> None:
    data = Digits(n_train=1000, n_test=797)
    data.setup()
    index = torch.cat([data.train.index, data.test.index])
    assert torch.equal(index.sort().values, torch.arange(1797))
    assert (data.input_shape, data.num_outputs, data.task) == ((1, 8, 8), 1, "binary")
    assert len(data.kernel.y) == 0
    assert data.kernel.x.shape == (0, 1, 8, 8)
    with pytest.raises(Exception, match="1798 samples are asked for, but the data has 1797"):
        Digits(n_train=1001, n_test=797).setup()


def test_index_points_into_the_source(digits: Any) -> None:
    _, classes = digits
    data = Digits(50, 40, labels=[3, 5], centre=False, sphere=False)
    data.setup()
    expected = torch.from_numpy(classes)[data.train.index]
    assert torch.equal(data.train.y, torch.where(expected == 3, 1.0, -1.0).double())
    assert set(expected.tolist()) == {3, 5}


def test_setup_is_done_once() -> None:
    data = Digits(20, 10)
    with pytest.raises(AttributeError, match=r"Digits.train is known after setup\(\)"):
        _ = data.train
    data.setup("fit")
    first = data.train.x
    data.setup("test")
    assert data.train.x is first
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = data.trian


def test_global_random_state_is_neither_read_nor_changed() -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        data = Digits(60, 30, n_kernel=10, n_val=5, batch_size=16, pca=4)
        data.setup()
        made.append((data, [batch[0] for batch in data.train_dataloader()], list(data.val_dataloader())))
        assert torch.equal(torch.get_rng_state(), before)
    (one, batches, _), (two, others, _) = made
    assert all(torch.equal(a, b) for a, b in zip(batches, others, strict=True))
    for name in ("train", "test", "kernel", "val"):
        for a, b in zip(getattr(one, name), getattr(two, name), strict=True):
            assert torch.equal(a, b)


def test_loaders() -> None:
    data = Stripe(d=2, n_train=50, n_test=1200, batch_size=20)
    data.setup()
    epochs = [torch.cat([x for x, _ in data.train_dataloader()]) for _ in range(2)]
    assert [len(x) for x, _ in data.train_dataloader()] == [20, 20, 10]
    assert not torch.equal(epochs[0], data.train.x)
    assert torch.equal(epochs[0].sort(0).values, data.train.x.sort(0).values)
    full = Stripe(d=2, n_train=50, n_test=1200, n_val=30)
    full.setup()
    assert list(islice(iter(full.train_dataloader()), 3)) == [0, 1, 2]
    for loader in (full.test_dataloader(), full.predict_dataloader()):
        x, y = (torch.cat(part) for part in zip(*loader, strict=True))
        assert torch.equal(x, full.test.x)
        assert torch.equal(y, full.test.y)
        assert [len(batch[1]) for batch in loader] == [1000, 200]


def test_burst_loader_counts_what_began() -> None:
    loader = BurstLoader()
    assert not hasattr(loader, "__len__")
    bursts = iter(loader)
    assert [next(bursts) for _ in range(4)] == [0, 1, 2, 3]
    assert loader.state_dict() == {"next_burst": 4}
    loader.began(2)
    resumed = BurstLoader()
    resumed.load_state_dict(loader.state_dict())
    assert list(islice(resumed, 2)) == [3, 4]


class Counting(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def training_step(self, burst: int, index: int) -> torch.Tensor:
        self.seen.append(burst)
        return self.weight.square().sum()

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Nothing to do: the class is about the train loader."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


# Lightning 2.6 calls a torch function that torch has since deprecated.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # there is no validation set
def test_a_trainer_resumes_at_the_next_burst(tmp_path: Path) -> None:
    seen = []
    for steps, start in ((3, None), (5, tmp_path / "a.ckpt")):
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model = Counting()
        trainer.fit(model, Stripe(d=2, n_train=4, n_test=2), ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        seen.append(model.seen)
    assert seen == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train must be at least 1, got 0"),
        ({"n_kernel": -1}, "n_kernel must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"test_seed": -2}, "test_seed must be at least 0, got -2"),
        ({"whiten": True}, "set pca to their number"),
        ({"statistics": "all"}, "must be 'train' or 'pool', got 'all'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Digits(**{"n_train": 10, "n_test": 10} | options)


OWN_OPTIONS: dict[str, dict[str, Any]] = {
    "ArrayFile": {"path": "a.npz", "labels": "multiclass"},
    "CIFAR10": {"labels": ["cat", "dog"], "pool": "official"},
    "CIFAR100": {"root": "elsewhere", "download": True},
    "Cylinder": {"d": 6, "sphere_dims": 3, "stretch": 2.5},
    "Digits": {"labels": {0: 1, 1: -1, 2: 0}, "pca": 10, "whiten": True},
    "HermiteRegression": {"d": 6, "teacher_seed": 2},
    "EMNIST": {"emnist_split": "balanced", "labels": {"a": 1, "b": -1}},
    "FashionMNIST": {"statistics": "pool", "centre": False},
    "KMNIST": {"files": "folder", "sphere": False},
    "MNIST": {"labels": [3, 5], "n_kernel": 7},
    "Sphere": {"d": 4},
    "TableFile": {"path": "a.csv", "targets": ["y"], "features": ["a"], "labels": "regression"},
    "Stripe": {"d": 4, "batch_size": 8, "train_seed": 3},
    "TeacherStudent": {"teacher_neurons": 5, "teacher_seed": 2, "normalise": False},
}


WRAPPERS = {"FromDataModule", "FromDataset"}  # of the user's own classes: tests/data/test_data_own.py


def test_every_class_is_in_the_table() -> None:
    assert set(OWN_OPTIONS) == set(lazy_lightning.data.__all__) - {"FlowData", "Split"} - WRAPPERS


def built(parser: ArgumentParser, parsed: Namespace) -> Namespace:
    """By the method's present name, which jsonargparse 4.44 does not have yet."""
    return parser.instantiate(parsed) if hasattr(parser, "instantiate") else parser.instantiate_classes(parsed)


@pytest.mark.parametrize("name", OWN_OPTIONS)
def test_yaml_parses_and_instantiates(name: str, tmp_path: Path) -> None:
    import yaml

    options = {"n_train": 20, "n_test": 10, **OWN_OPTIONS[name]}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"class_path": name, "init_args": options}}))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(FlowData, "data")
    parsed = parser.parse_args(["--config", str(config)])
    made = built(parser, parsed).data
    assert type(made) is getattr(lazy_lightning.data, name)
    assert {key: parsed.data.init_args[key] for key in options} == options
    assert made.n_train == 20


@pytest.mark.parametrize(
    ("text", "labels"),
    [("parity", "parity"), ("[3, 5]", [3, 5]), ("[cat, dog]", ["cat", "dog"]), ("{0: 1, -1: -1}", {0: 1, -1: -1})],
)
def test_labels_on_the_command_line(text: str, labels: Any) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FlowData, "data")
    sizes = ["--data=MNIST", "--data.n_train=2", "--data.n_test=2", "--data.files=x.npz"]
    parsed = parser.parse_args([*sizes, f"--data.labels={text}"])
    assert parsed.data.init_args.labels == labels
    assert str(built(parser, parsed).data.files) == "x.npz"
