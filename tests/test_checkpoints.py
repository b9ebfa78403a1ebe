"""Checkpoints: cheap to save and load, checked before anything is taken from them, written where the run is."""

from __future__ import annotations

import copy
import functools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from fits import digits
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from lazy_lightning.callbacks import T1, Curves, RunCheckpoint
from lazy_lightning.callbacks.pace import Pace
from lazy_lightning.errors import ConfigError, LazyLightningError
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.modules.observation import Record
from lazy_lightning.nn import FC
from lazy_lightning.runs import checkpoints
from lazy_lightning.runs.checkpoint_digest import checkpoint_digest
from lazy_lightning.runs.checkpoints import read_checkpoint
from lazy_lightning.runs.run_files import CHECKPOINT

OLD = Path(__file__).parent / "data" / "runs_of_0_1_0"
NETWORK = functools.partial(FC, width=4, depth=2)
MEMBERS = {"alpha": [0.1, 10.0], "seeds": 1}


def trainer(folder: Path, *callbacks: Any, epochs: int = -1) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, precision="64-true", max_epochs=epochs, logger=False, default_root_dir=folder,
        callbacks=list(callbacks), num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks), limit_val_batches=0,
    )  # fmt: skip


def flow(**options: Any) -> FlowModule:
    return FlowModule(NETWORK, **{"stop": StoppingCriteria(max_steps=20), "tau": 0.5, **MEMBERS, **options})


def kernel(**options: Any) -> KernelModule:
    return KernelModule(NETWORK, **{"stop": StoppingCriteria(max_steps=20), **MEMBERS, **options})


def scaled(**options: Any) -> MiniBatchModule:
    return MiniBatchModule(NETWORK, **{"companions": ["linearized"], **MEMBERS, **options})


MAKE: dict[str, tuple[Callable[..., Any], int | None, int]] = {
    "flow": (flow, None, -1),
    "kernel": (kernel, None, -1),
    "scaled": (scaled, 5, 2),
}


def data(batch_size: int | None) -> Any:
    return digits(n_train=12, n_test=6, batch_size=batch_size)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each module."""
    paths = {}
    for name, (make, batch_size, epochs) in MAKE.items():
        folder = tmp_path_factory.mktemp(name)
        trainer(folder, Curves(), RunCheckpoint(), epochs=epochs).fit(make(), datamodule=data(batch_size))
        paths[name] = folder / CHECKPOINT
    return paths


def go_on(name: str, path: Path, folder: Path) -> Any:
    make, batch_size, epochs = MAKE[name]
    own = make()
    trainer(folder, Curves(), RunCheckpoint(), epochs=epochs).fit(
        own, datamodule=data(batch_size), ckpt_path=path, weights_only=True
    )
    return own


# ---------------------------------------------------------------------- damage


def test_every_flipped_bit_is_found(saved: dict[str, Path], tmp_path: Path) -> None:
    """Or lies where the format keeps nothing of the content: then the content is what it was."""
    whole, random = saved["flow"].read_bytes(), np.random.default_rng(0)
    path = tmp_path / "damaged.ckpt"
    before = torch.load(saved["flow"], weights_only=True)["state_dict"]
    found = 0
    for _ in range(150):
        content, place = bytearray(whole), int(random.integers(len(whole)))
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        try:
            after = read_checkpoint(path)["state_dict"]
        except ConfigError as error:
            found += str(path) in str(error)
        else:
            assert all(torch.equal(after[key], before[key]) for key in before)
    assert found > 50


def with_a_flipped_bit(path: Path) -> bytes:
    """The content of a checkpoint with one bit of its weights changed."""
    weights = torch.load(path, weights_only=True)["state_dict"]["w"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[bytes(content).index(weights) + 11] ^= 4
    return bytes(content)


def test_a_flipped_bit_in_the_weights_is_told_by_its_checksum(saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "damaged.ckpt").write_bytes(with_a_flipped_bit(saved["flow"]))
    with pytest.raises(ConfigError, match=r"damaged.ckpt is damaged: its content differs from its checksum"):
        read_checkpoint(tmp_path / "damaged.ckpt")
    with pytest.raises(ConfigError, match="checksum"):  # a Trainer of one's own finds it as well
        go_on("flow", tmp_path / "damaged.ckpt", tmp_path)


def test_checksums_are_compared_once_until_the_file_changes(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []
    compare = checkpoints._compare_checksums
    monkeypatch.setattr(checkpoints, "_compare_checksums", lambda path: (compared.append(path), compare(path)))
    copied = tmp_path / CHECKPOINT
    copied.write_bytes(saved["flow"].read_bytes())
    os.utime(copied, (1e9, 1e9))
    for _ in range(3):
        read_checkpoint(copied)
    assert len(compared) == 1
    copied.write_bytes(with_a_flipped_bit(saved["flow"]))
    os.utime(copied, (1e9, 1e9))
    with pytest.raises(ConfigError):
        read_checkpoint(copied)
    assert len(compared) == 2


@pytest.mark.parametrize("kept", [0, 10, 1000, -1, -200])
def test_cut_off(kept: int, saved: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes(saved["flow"].read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"cut.ckpt"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], torch.zeros(3), {"lazy_lightning": [1]}], ids=str)
def test_content_of_another_program(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"a.ckpt is not a checkpoint of a run"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"lazy_lightning": {}, "x": Bomb()}, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- content that no run has written


def held(content: dict[str, Any]) -> dict[str, Any]:
    return next(iter(content["optimizer_states"][0]["state"].values()))


def own(content: dict[str, Any]) -> dict[str, Any]:
    return content["lazy_lightning"]


def loop(content: dict[str, Any]) -> dict[str, Any]:
    return content["loops"]["fit_loop"]


def put(place: Callable[[dict[str, Any]], dict[str, Any]], name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place(content)[name] = value(place(content)[name]) if callable(value) else value

    return change


def drop(place: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        del place(content)[name]

    return change


def spoil(x: torch.Tensor) -> torch.Tensor:
    return x.clone().index_fill_(0, torch.tensor([0]), torch.nan)


RUNNING = put(held, "reason", lambda x: torch.zeros_like(x))
OF_A_FLOW = {
    **{f"no {name}": drop(held, name) for name in ("origin", "displacement", "gradient", "outputs", "loss", "t", "dt",
        "loss_start", "gradient_norm", "gradient_change", "tried", "accepted", "reason")},
    **{f"NaN in {name}": lambda c, n=name: (RUNNING(c), put(held, n, spoil)(c)) for name in ("displacement", "gradient",
        "outputs", "loss", "gradient_norm", "t", "dt")},
    **{f"shape of {name}": put(held, name, lambda x: x[..., :-1].clone()) for name in ("displacement", "gradient",
        "outputs", "loss", "t", "dt", "tried", "reason")},
    "negative dt": lambda c: (RUNNING(c), put(held, "dt", lambda x: -x)(c)),
    "negative t": put(held, "t", lambda x: -x - 1),
    "negative tried": put(held, "tried", lambda x: -x - 1),
    "more accepted than tried": put(held, "accepted", lambda x: x + 1000),
    "unknown reason": put(held, "reason", lambda x: x * 0 + 77),
    "reason as float": put(held, "reason", lambda x: x.double()),
    "float32 displacement": put(held, "displacement", lambda x: x.float()),
    "a list for a tensor": put(held, "t", [0.0, 0.0]),
    "another origin": put(held, "origin", lambda x: x + 1),
    "no flow": put(lambda c: c["optimizer_states"][0], "state", {}),
}  # fmt: skip
OF_ALL = {
    "no optimizer": drop(lambda c: c, "optimizer_states"),
    "optimizer of another type": put(lambda c: c, "optimizer_states", {"a": 1}),
    "two optimizers": put(lambda c: c, "optimizer_states", lambda x: x * 2),
    "loops of another type": put(lambda c: c, "loops", [1, 2]),
    "no loops": drop(lambda c: c, "loops"),
    "no fit loop": drop(lambda c: c["loops"], "fit_loop"),
    "loop of another type": put(loop, "epoch_progress", 3),
    "negative epoch": put(lambda c: loop(c)["epoch_progress"]["current"], "completed", -1),
    "no present count": drop(lambda c: loop(c)["epoch_progress"], "current"),
    "count of another type": put(lambda c: loop(c)["epoch_loop.batch_progress"]["total"], "ready", "many"),
    "version of another type": put(lambda c: c, "pytorch-lightning_version", 2),
    "no version": drop(lambda c: c, "pytorch-lightning_version"),
    "no weights": drop(lambda c: c, "state_dict"),
    "weights of another type": put(lambda c: c, "state_dict", [1]),
    "a weight that is no tensor": put(lambda c: c["state_dict"], "w0", [1.0]),
    "w0 of another shape": put(lambda c: c["state_dict"], "w0", lambda x: x[:, :-1].clone()),
    "w0 in float32": put(lambda c: c["state_dict"], "w0", lambda x: x.float()),
    "unknown weight": put(lambda c: c["state_dict"], "extra", torch.zeros(1)),
    "observations of another type": put(own, "observations", "3"),
    "negative observations": put(own, "observations", -1),
    "true observations": put(own, "observations", True),
    "failed observers of another type": put(own, "failed_observers", True),
    "columns of another type": put(own, "failed_observers", {"T1": 3}),
    "NaN wall": put(own, "wall", float("nan")),
    "alphas of another type": put(own, "alphas", 0.1),
    "a NaN alpha": put(own, "alphas", [float("nan"), 1.0]),
    "no seeds": drop(own, "seeds"),
    "objective of another type": put(own, "objective", 3),
    "no callbacks": drop(lambda c: c, "callbacks"),
    "curves of another type": put(lambda c: c["callbacks"], "Curves", {"index": 3}),
    "curves of several lengths": put(lambda c: c["callbacks"]["Curves"], "index", lambda x: x[:-1]),
}
OF_MINI_BATCHES = {
    "no steps": drop(own, "steps"),
    "reasons of another type": put(own, "reasons", "ended"),
    "another number of reasons": put(own, "reasons", [4]),
    "negative steps": put(own, "steps", -3),
    "t of another type": put(own, "t", [0.0]),
    "no clock of a model": drop(lambda c: own(c)["t"], "linearized"),
    "NaN in t": put(lambda c: own(c)["t"], "network", [float("nan"), 0.0]),
    "t of other length": put(lambda c: own(c)["t"], "network", [0.0]),
    "rates of another type": put(own, "rates", 0.1),
    "loss at w0 of another shape": put(own, "loss_start", torch.zeros(7, dtype=torch.float64)),
    "negative rate": put(lambda c: c["optimizer_states"][0]["param_groups"][0], "lr", -0.1),
    "momentum of another shape": put(lambda c: c["optimizer_states"][0]["state"][0], "momentum_buffer", torch.ones(3)),
    "a group less": put(lambda c: c["optimizer_states"][0], "param_groups", lambda x: x[:-1]),
    "a schedule too many": put(lambda c: c, "lr_schedulers", [{}]),
    "place of another type": put(lambda c: c, "Digits", -1),
    "no epoch of the next batch": drop(lambda c: c["Digits"], "epoch"),
    "no displacement": drop(lambda c: c["state_dict"], "displacements.network.0"),
}
CASES = [
    *[("flow", what, change) for what, change in {**OF_A_FLOW, **OF_ALL}.items()],
    ("flow", "no velocity", drop(held, "velocity")),
    *[("kernel", what, change) for what, change in {**OF_A_FLOW, **OF_ALL}.items()],
    *[("scaled", what, change) for what, change in {**OF_MINI_BATCHES, **OF_ALL}.items()],
]


@pytest.mark.parametrize(("name", "what", "change"), CASES, ids=[f"{name}: {what}" for name, what, _ in CASES])
def test_refused_before_anything_is_touched(
    name: str, what: str, change: Callable[[dict[str, Any]], None], saved: dict[str, Path], tmp_path: Path
) -> None:
    content = copy.deepcopy(torch.load(saved[name], weights_only=True))
    change(content)
    path = tmp_path / "wrong.ckpt"
    torch.save(content, path)
    make, batch_size, epochs = MAKE[name]
    module, curves = make(), Curves()
    with pytest.raises(ConfigError) as told:
        trainer(tmp_path / "out", curves, epochs=epochs).fit(
            module, datamodule=data(batch_size), ckpt_path=path, weights_only=True
        )
    sentence = str(told.value)
    assert str(path) in sentence or re.match("the checkpoint (holds members|has .* the next mini-batch)", sentence)
    assert "\n" not in sentence
    assert not curves.records
    assert module.observations == 0
    untouched = make()
    trainer(tmp_path / "other", epochs=epochs).fit(untouched, datamodule=data(batch_size))
    assert torch.equal(module.w0, untouched.w0)


@pytest.mark.parametrize("name", MAKE)
def test_what_runs_have_written_is_accepted(name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    assert go_on(name, saved[name], tmp_path).observations == own(torch.load(saved[name]))["observations"]


def test_a_checkpoint_of_another_kind_of_training(saved: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is of mini-batch training, not of a flow"):
        go_on("flow", saved["scaled"], tmp_path)
    with pytest.raises(ConfigError, match="is of a flow, not of mini-batch training"):
        go_on("scaled", saved["flow"], tmp_path)


# ---------------------------------------------------------------------- cost


def test_curves_take_one_array_a_column(tmp_path: Path) -> None:
    """Of 2000 observations: 60000 tensors took 5 s to save and 20 s to load."""
    curves = Curves()
    names = [f"column/{i}" for i in range(30)]
    curves.records = [
        Record(i, float(i), False, {name: np.full(8, i + 0.5) for name in names[: 30 if i else 20]})
        for i in range(2000)
    ]
    begin = time.perf_counter()
    torch.save(curves.state_dict(), tmp_path / "a")
    again = Curves()
    again.load_state_dict(torch.load(tmp_path / "a", weights_only=True))
    assert time.perf_counter() - begin < 5.0
    assert (tmp_path / "a").stat().st_size < 1.1 * 2000 * 8 * 30 * 8
    assert len(again.records) == 2000
    assert again.records[7].columns["column/3"].tolist() == [7.5] * 8
    assert np.isnan(again.records[0].columns["column/29"]).all()  # as in the table, which has no gaps either
    assert again.records[0].columns["column/19"].tolist() == [0.5] * 8


def test_old_curves_load() -> None:
    state = torch.load(OLD / "flow" / CHECKPOINT, weights_only=True)["callbacks"]["Curves"]
    assert isinstance(state["columns"], list)
    curves = Curves()
    curves.load_state_dict(state)
    table = pd.read_parquet(OLD / "flow" / "curves.parquet")
    assert [record.index for record in curves.records] == sorted(set(table.observation))
    assert np.array_equal(np.concatenate([record.columns["t"] for record in curves.records]), table["t"])


def test_slow_saves_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an interval shorter than a save, every burst would save."""
    clock = [0.0]
    monkeypatch.setattr("lazy_lightning.callbacks.pace.time.monotonic", lambda: clock[0])
    pace = Pace(every_seconds=10.0)
    pace.restart(at_once=True)
    saves = 0
    for _ in range(3000):  # bursts of one second, saves of seven
        clock[0] += 1.0
        if pace.is_due():
            saves += 1
            with pace.measured():
                clock[0] += 7.0
    assert 7 * saves < 0.06 * clock[0]
    assert saves > 10


def test_first_saves_come_early_and_then_at_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("lazy_lightning.callbacks.pace.time.monotonic", lambda: clock[0])
    pace = Pace(every_seconds=10.0)
    pace.restart(at_once=True)
    times = []
    while clock[0] < 60:
        clock[0] += 0.125
        if pace.is_due():
            times.append(clock[0])
            with pace.measured():
                pass
    assert times[0] == 0.125
    assert times[1] < 0.5
    assert max(np.diff(times)) <= 10.25


def test_a_checkpoint_is_there_after_the_first_burst(tmp_path: Path) -> None:
    class Look(RunCheckpoint):
        there: ClassVar[list[bool]] = []

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            super().on_train_batch_end(trainer, *args)
            self.there.append((Path(str(trainer.log_dir)) / CHECKPOINT).is_file())

    trainer(tmp_path, Look(every_seconds=1e6)).fit(flow(), datamodule=data(None))
    assert Look.there[0]


# ---------------------------------------------------------------------- writing


def test_saves_do_not_pass_through_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    run = trainer(tmp_path / "run", Curves(), RunCheckpoint())
    run.fit(flow(), datamodule=data(None))
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)
    run.save_checkpoint(tmp_path / "run" / "by_hand.ckpt")
    assert read_checkpoint(tmp_path / "run" / "by_hand.ckpt")


def test_a_new_session_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    run = trainer(tmp_path, RunCheckpoint())
    run.fit(flow(), datamodule=data(None))
    left = tmp_path / ".checkpoint.abcd1234.ckpt"
    left.write_text("half of")
    os.utime(left, (0, 0))
    go_on("flow", tmp_path / CHECKPOINT, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_unwritable_checkpoint_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lazy_lightning.runs.checkpoints.torch.save", full)
    run = trainer(tmp_path, Curves(), RunCheckpoint(every_seconds=0.0))
    with pytest.raises(LazyLightningError, match=r"checkpoint.ckpt could not be written, while the rest"):
        run.fit(flow(), datamodule=data(None))
    assert (tmp_path / "curves.parquet").is_file()
    assert not list(tmp_path.glob("*.ckpt"))
    assert capsys.readouterr().err.count("No space left on device") == 1


# ---------------------------------------------------------------------- runs of version 0.1.0


def old(name: str, **more: Any) -> Any:
    network = functools.partial(FC, width=3, depth=2)
    if name == "scaled":
        from lazy_lightning.modules.inverse_decay import InverseDecay
        from lazy_lightning.modules.learning_rates import LearningRateSearch

        return MiniBatchModule(
            functools.partial(FC, width=3, depth=2, activation="relu"), alpha=[0.1, 10.0], seeds=1,
            lr_scheduler=InverseDecay, search=LearningRateSearch([10.0, 1.0, 0.1, 0.01], steps=2),
            companions=["linearized", "frozen_activations"],
        )  # fmt: skip
    kind = FlowModule if name == "flow" else KernelModule
    return kind(network, alpha=[0.1, 10.0], seeds=1, dt=0.01, **more)


@pytest.mark.parametrize("name", ["flow", "kernel", "scaled"])
def test_checkpoints_of_0_1_0_go_on_as_if_uninterrupted(name: str, tmp_path: Path) -> None:
    tables = {}
    for how in ("whole", "on"):
        batch_size, epochs = (4, 3) if name == "scaled" else (None, -1)
        source = digits(
            n_train=8, n_test=4, labels="multiclass" if name == "scaled" else "parity", batch_size=batch_size
        )
        more = [] if name == "scaled" else [T1(definitions=["half_loss"])]
        curves, own = Curves(), old(name, **({} if name == "scaled" else {"stop": StoppingCriteria(max_steps=12)}))
        path = OLD / name / CHECKPOINT if how == "on" else None
        trainer(tmp_path / how, curves, *more, epochs=epochs).fit(
            own, datamodule=source, ckpt_path=path, weights_only=True
        )
        tables[how] = curves.table(own)
    common = [c for c in tables["whole"] if c in tables["on"]]
    last = {how: table.groupby("member").last()[["t", "tried", "train/loss"]] for how, table in tables.items()}
    assert {"t", "tried", "test/loss"} <= set(common)
    pd.testing.assert_frame_equal(last["on"], last["whole"], check_exact=False, rtol=1e-9)


def test_a_kernel_at_the_end_of_a_run_of_0_1_0(tmp_path: Path) -> None:
    own = old("kernel", at="end", checkpoint=str(OLD / "flow" / CHECKPOINT), stop=StoppingCriteria(max_steps=3))
    trainer(tmp_path).fit(own, datamodule=digits(n_train=8, n_test=4))
    assert own.observations > 1


# ---------------------------------------------------------------------- the digest of the content


def exchanged(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Two equally long tensors exchanged, both valid in their new places."""
    other = copy.deepcopy(content)
    if name == "scaled":
        state, pair = other["state_dict"], ("displacements.network.0", "displacements.linearized.0")
    else:
        state, pair = held(other), ("loss", "loss_start")
    assert not torch.equal(state[pair[0]], state[pair[1]])
    state[pair[0]], state[pair[1]] = state[pair[1]], state[pair[0]]
    return other


@pytest.mark.parametrize("name", MAKE)
def test_two_exchanged_tensors_are_found_by_the_digest(name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    content = torch.load(saved[name], weights_only=True)
    path = tmp_path / "exchanged.ckpt"
    torch.save(exchanged(content, name), path)
    with pytest.raises(ConfigError, match=r"exchanged.ckpt has been changed since it was written: the digest"):
        go_on(name, path, tmp_path / "out")
    torch.save(content, path)  # the same content in other bytes
    go_on(name, path, tmp_path / "out")


def test_checkpoint_without_a_digest_is_accepted(saved: dict[str, Path], tmp_path: Path) -> None:
    """As those of version 0.1.0."""
    content = torch.load(saved["flow"], weights_only=True)
    assert len(content["lazy_lightning"].pop("digest")) == 64
    torch.save(content, tmp_path / "old.ckpt")
    go_on("flow", tmp_path / "old.ckpt", tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["a"].__setitem__((1, 1), 5.0),
        lambda c: c.update(a=c["a"].float()),
        lambda c: c.update(a=c["a"].T),
        lambda c: c.update(a=c["a"].reshape(4)),
        lambda c: c.update(n=3.0),
        lambda c: c.update(n="3"),
        lambda c: c.update(flag=1),
        lambda c: c["deep"][0].update(z=-0.0),
        lambda c: c["deep"].append(None),
        lambda c: c.update(z=c["z"] * (1 + 2**-52)),
        lambda c: c.update({"other": c.pop("a")}),
    ],
)
def test_digest_depends_on_every_name_type_shape_and_value(change: Callable[[dict[str, Any]], Any]) -> None:
    def content() -> dict[str, Any]:
        return {
            "a": torch.arange(4.0, dtype=torch.float64).view(2, 2), "n": 3, "flag": True, "empty": torch.zeros(0, 2),
            "deep": [{"z": 0.0}, torch.tensor(True)], "z": torch.tensor([1 + 1j], dtype=torch.complex128),
            "half": torch.ones(3).bfloat16(),
        }  # fmt: skip

    changed = content()
    change(changed)
    digests = [checkpoint_digest(c, "own") for c in (content(), changed, {**content(), "own": {"digest": "x"}})]
    assert digests[0] != digests[1]
    assert digests[2] == checkpoint_digest({**content(), "own": {}}, "own")
