"""``model.init``: a fit starts from the weights of a run or of a file, lazily too; and what is refused."""

import functools
import shutil
import warnings

import pytest
import torch
from command_line import QUIET, error_of
from fits import assert_same_curves
from observed import Scaled, StopAt, small, watch
from pytorch_lightning import Trainer
from safetensors.torch import save_file
from torch import nn

from lazy_lightning.callbacks import KernelEvolution, RunCheckpoint
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC, TorchvisionNetwork
from lazy_lightning.runs import configuration, state_file

NETWORK = functools.partial(FC, width=6, depth=1)
STOP = StoppingCriteria(max_steps=25)


def flow(**options):
    return FlowModule(NETWORK, **{"stop": STOP, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learnt features, of two alphas and two seeds."""
    return watch(tmp_path_factory.mktemp("trained"), RunCheckpoint(), model=flow(alpha=[0.1, 0.3], seeds=2))


def start_of(folder, model, data=None):
    """A fit of one step from given weights."""
    model.stop = StoppingCriteria(max_steps=1)
    return watch(folder, model=model, data=data or small())


def test_run_starts_from_the_final_weights_of_each_member(tmp_path, trained):
    seen = start_of(tmp_path, flow(alpha=[0.3, 0.1], seeds=[1, 0], init=str(trained.folder))).module
    rows, m = [3, 2, 1, 0], trained.module
    assert torch.equal(seen.w0, m.w.detach()[rows])
    x = m.test_split.x
    assert torch.equal(seen.raw_outputs(seen.w0, x), m.raw_outputs(m.w.detach(), x)[rows])


def test_lazy_restart_is_the_flow_on_the_kernel_of_the_stored_weights(tmp_path, trained):
    """The distance falls as 1/alpha."""
    path = str(trained.folder / "checkpoint.ckpt")
    stop = StoppingCriteria(t_max=3.0)
    exact = {"integrator": "explicit", "tol": 1e-9}
    data, options = small(), {"loss": "mse", "seeds": 2, "stop": stop, "init": path, "init_alpha": 0.1, **exact}
    frozen = KernelModule(NETWORK, alpha=1.0, **options)
    kernel = watch(tmp_path / "kernel", model=frozen, data=data).module.held_out()
    distances = []
    for alpha in (1e2, 1e3):
        F = watch(tmp_path / str(alpha), model=flow(alpha=alpha, **options), data=data).module.held_out()
        distances.append(float((F - kernel).abs().max()))
    assert distances[0] < 0.1 * float(kernel.abs().max())
    assert distances[1] < 1e-2 * float(kernel.abs().max())
    assert 8 < distances[0] / distances[1] < 12


@pytest.mark.parametrize("moved", [False, True])
def test_resumed_run_is_the_undisturbed_one_also_without_the_file(tmp_path, trained, moved):
    source = tmp_path / "source.ckpt"
    shutil.copy(trained.folder / "checkpoint.ckpt", source)
    options = {"alpha": [0.1, 0.3], "seeds": 2, "init": str(source)}
    whole = watch(tmp_path / "whole", model=flow(**options))
    watch(tmp_path / "a", StopAt(4), RunCheckpoint(), model=flow(**options))
    if moved:
        source.unlink()
    resumed = watch(tmp_path / "b", model=flow(**options), ckpt_path=tmp_path / "a/checkpoint.ckpt")
    assert_same_curves(resumed.table, whole.table)


def test_resumed_run_is_the_undisturbed_one_also_when_the_file_holds_another_run(tmp_path, trained):
    """Of one alpha, whose members start alike for all alphas of the run that goes on."""
    source, options = tmp_path / "source.ckpt", {"alpha": [0.1, 0.3], "seeds": 2, "init": str(tmp_path / "source.ckpt")}
    shutil.copy(trained.folder / "checkpoint.ckpt", source)
    whole = watch(tmp_path / "whole", KernelEvolution(), model=flow(**options))
    watch(tmp_path / "a", KernelEvolution(), StopAt(4), RunCheckpoint(), model=flow(**options))
    watch(tmp_path / "other", RunCheckpoint(), model=flow(alpha=0.1, seeds=2))
    shutil.copy(tmp_path / "other/checkpoint.ckpt", source)
    path = tmp_path / "a/checkpoint.ckpt"
    resumed = watch(tmp_path / "b", KernelEvolution(), model=flow(**options), ckpt_path=path)
    assert_same_curves(resumed.table, whole.table)


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested"])
def test_file_of_one_networks_weights_by_name(tmp_path, form):
    torch.manual_seed(3)
    network = Scaled((4,)).double()
    state = network.state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if form == "torch" else {"epoch": 3, "state_dict": state}, path)
    m = start_of(tmp_path / "run", FlowModule(Scaled, alpha=[1.0, 10.0], init=str(path), centering=False)).module
    x = m.test_split.x
    expected = network(x).detach().expand(2, -1, 1)
    torch.testing.assert_close(m.raw_outputs(m.w0, x), expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(m.shared_starts.own, torch.tensor([0, 0]))


def test_pretrained_network_of_torchvision_with_a_new_head(tmp_path):
    """Batch statistics included; the head is drawn by the seeds, whose members share the rest."""
    from torchvision import models

    from lazy_lightning.data import Digits

    torch.manual_seed(0)
    theirs = models.resnet18(num_classes=7).double()
    with torch.no_grad():
        theirs.train()(3 + 2 * torch.randn(8, 3, 20, 20, dtype=torch.float64))  # moves the statistics
        theirs.conv1.weight.data = theirs.conv1.weight.sum(1, keepdim=True)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pt")
    build = functools.partial(TorchvisionNetwork, "resnet18", batch_norm="statistics")
    model = MiniBatchModule(build, seeds=2, init=str(tmp_path / "resnet.pt"), init_fresh=["net.fc"], loss="mse")
    data = Digits(n_train=4, n_test=4, batch_size=2)
    trainer = Trainer(accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False)
    trainer.datamodule = data
    model.trainer = trainer
    data.setup()
    model.setup("validate")
    model.require_given_weights()
    head = theirs.fc.in_features + 1
    assert torch.equal(model.w0[0, :-head], model.w0[1, :-head])
    assert not torch.equal(model.w0[0, -head:], model.w0[1, -head:])
    theirs.fc = nn.Linear(head - 1, 1).double()
    with torch.no_grad():
        theirs.fc.weight.copy_(model.network.unpack(model.w0)["net.fc.weight"][1])
        theirs.fc.bias.copy_(model.network.unpack(model.w0)["net.fc.bias"][1])
        expected = theirs.eval()(data.test.x)
    torch.testing.assert_close(model.raw_outputs(model.w0, data.test.x)[1], expected, rtol=1e-10, atol=1e-10)


def test_mini_batches_go_on_lazily_from_mini_batches(tmp_path):
    def trainer(folder, *callbacks):
        return Trainer(
            accelerator="cpu", precision="64-true", max_steps=3, log_every_n_steps=1, default_root_dir=folder,
            callbacks=list(callbacks), logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, limit_val_batches=0,
        )  # fmt: skip

    first, data = MiniBatchModule(NETWORK, loss="mse", seeds=2), small(batch_size=10)
    fit = trainer(tmp_path)
    fit.fit(first, datamodule=data)
    fit.save_checkpoint(tmp_path / "first.ckpt")
    second = MiniBatchModule(
        NETWORK, loss="mse", seeds=2, alpha=100.0, init=str(tmp_path / "first.ckpt"), companions=["linearized"]
    )
    trainer(tmp_path).fit(second, datamodule=data)
    assert torch.equal(second.w0, first.w.detach())
    dw, linearized = (second.displacement(name).detach() for name in ("network", "linearized"))
    assert float((dw - linearized).norm()) < 0.05 * float(dw.norm())


# ---------------------------------------------------------------------- another function of the same weights

DEEP = functools.partial(FC, width=6, depth=2)


class Constant(nn.Module):
    """A network with a frozen parameter that all seeds share, and that no checkpoint holds."""

    def __init__(self, input_shape, constant: float, num_outputs: int = 1) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(*input_shape, 5), nn.Linear(5, num_outputs)
        self.constant = nn.Parameter(torch.tensor(constant), requires_grad=False)

    def forward(self, x):
        return self.head(torch.tanh(self.constant * self.first(x)))


@pytest.mark.parametrize("precision", ["64-true", "32-true"])
def test_weights_of_another_activation_or_constant_are_refused(tmp_path, precision):
    """Names and shapes agree; the network that was trained passes, in float32 too."""
    same, other = functools.partial(Constant, constant=0.5), functools.partial(Constant, constant=0.6)
    for name, one, another in (
        ("activation", functools.partial(DEEP, activation="relu"), functools.partial(DEEP, activation="swish")),
        ("constant", same, other),
    ):
        options = {"alpha": 1.0, "stop": STOP, "centering": False}
        fitted = watch(tmp_path / name, RunCheckpoint(), model=FlowModule(one, **options), precision=precision)
        options["init"] = str(fitted.folder)
        start_of(tmp_path / f"{name} again", FlowModule(one, **options))
        with pytest.raises(ConfigError, match=r"comes from another network than .* at the same weights and inputs"):
            start_of(tmp_path / f"{name} other", FlowModule(another, **options))


def test_a_new_output_layer_does_not_hide_another_activation(tmp_path):
    options = {"alpha": 1.0, "stop": STOP, "init_fresh": ["head"]}
    fitted = watch(tmp_path / "first", RunCheckpoint(), model=FlowModule(DEEP, alpha=1.0, stop=STOP))
    options["init"] = str(fitted.folder)
    start_of(tmp_path / "same", FlowModule(DEEP, **options))
    with pytest.raises(ConfigError, match=r"what the layer hidden\.1 puts out differs"):
        start_of(tmp_path / "other", FlowModule(functools.partial(DEEP, activation="swish"), **options))


def test_the_comparison_survives_a_resumed_run(tmp_path):
    """The resumed run's checkpoint holds what the first one held."""
    watch(tmp_path / "a", StopAt(4), RunCheckpoint(), model=flow(alpha=1.0))
    watch(tmp_path / "b", RunCheckpoint(), model=flow(alpha=1.0), ckpt_path=tmp_path / "a/checkpoint.ckpt")
    probes = [torch.load(tmp_path / f"{run}/checkpoint.ckpt")["lazy_lightning"]["probe"] for run in "ab"]
    assert torch.equal(probes[0]["outputs"], probes[1]["outputs"])
    assert probes[0]["layers"] == probes[1]["layers"] != {}
    network = functools.partial(FC, width=6, depth=1, activation="relu")
    with pytest.raises(ConfigError, match="what the layer head puts out differs"):
        start_of(tmp_path / "c", FlowModule(network, alpha=1.0, init=str(tmp_path / "b")))


# ---------------------------------------------------------------------- members that have not ended, or failed


def test_a_run_that_has_not_ended_is_named_in_a_warning(tmp_path):
    watch(tmp_path / "a", StopAt(4), RunCheckpoint(), model=flow(alpha=1.0))
    given = flow(alpha=1.0, init=str(tmp_path / "a"))
    with pytest.warns(UserWarning, match=r"alpha 1 and seed 0 that has not ended \(still running\)"):
        watch(tmp_path / "b", StopAt(2), RunCheckpoint(), model=given)
    with warnings.catch_warnings(action="error", category=UserWarning):  # a resumed run has its w0
        resumed = flow(alpha=1.0, init=str(tmp_path / "a"))
        watch(tmp_path / "c", model=resumed, ckpt_path=tmp_path / "b/checkpoint.ckpt")


def test_mini_batches_that_have_not_ended_are_named_too(tmp_path):
    module = MiniBatchModule(NETWORK, loss="mse")
    options = {
        "accelerator": "cpu", "precision": "64-true", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False,
    }  # fmt: skip
    trainer = Trainer(max_steps=9, default_root_dir=tmp_path, callbacks=[StopAt(1)], **options)
    trainer.fit(module, datamodule=small(batch_size=10))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="has not ended"):
        start_of(tmp_path / "b", flow(alpha=1.0, init=str(tmp_path / "a.ckpt")))


@pytest.mark.parametrize("how", ["reason", "weights"])
def test_a_failed_member_is_refused_and_others_are_not(tmp_path, trained, how):
    content = torch.load(trained.folder / "checkpoint.ckpt")
    del content["lazy_lightning"]["digest"]
    if how == "reason":
        content["lazy_lightning"]["reasons"][0] = int(StopReason.NON_FINITE)
    else:
        content["state_dict"]["w"][0, 3] = torch.nan
    torch.save(content, tmp_path / "failed.ckpt")
    options = {"seeds": 1, "init": str(tmp_path / "failed.ckpt")}
    expected = r"alpha 0.1 and seed 0 that failed \(non-finite\)" if how == "reason" else "weights that are not finite"
    with pytest.raises(ConfigError, match=expected):
        start_of(tmp_path / "a", flow(alpha=0.1, **options))
    start_of(tmp_path / "b", flow(alpha=0.3, **options))


def test_the_reasons_of_an_older_checkpoint_are_those_of_its_flow(tmp_path, trained):
    content = torch.load(trained.folder / "checkpoint.ckpt")
    for name in ("digest", "reasons", "probe", "settings"):
        del content["lazy_lightning"][name]
    next(iter(content["optimizer_states"][0]["state"].values()))["reason"][2] = int(StopReason.DT_UNDERFLOW)
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ConfigError, match=r"alpha 0.3 and seed 0 that failed \(step size underflow"):
        start_of(tmp_path / "a", flow(alpha=0.3, seeds=1, init=str(tmp_path / "old.ckpt")))


# ---------------------------------------------------------------------- the file


def test_the_file_is_read_once(tmp_path, trained, monkeypatch):
    """Before the run's folder is made; its content is not kept."""
    read = []
    load = torch.load
    monkeypatch.setattr(state_file.torch, "load", lambda path, **options: (read.append(path), load(path, **options))[1])
    model = flow(alpha=0.1, seeds=2, init=str(trained.folder))
    model.given_weights.check(model.ensemble)
    start_of(tmp_path, model)
    assert len(read) == 1
    assert model.given_weights._content is None


TAMPERED = {
    "alphas": lambda c: c["lazy_lightning"].pop("alphas"),
    "seeds": lambda c: c["lazy_lightning"].update(seeds="ab"),
    "data_seeds": lambda c: c["lazy_lightning"].update(data_seeds=3),
    "layout": lambda c: c["lazy_lightning"].update(layout=[["hidden.0.weight"]]),
    "shape": lambda c: c["lazy_lightning"].update(layout=[["hidden.0.weight", [-1, 4]]]),
    "state_dict": lambda c: c.update(state_dict=None),
    "w": lambda c: c["state_dict"].update(w=torch.zeros(3)),
    "w0": lambda c: c["state_dict"].update(w0=torch.zeros(())),
    "dw": lambda c: c["state_dict"].update(dw=torch.zeros(4, 1)),
    "reasons": lambda c: c["lazy_lightning"].update(reasons=[77, 1, 1, 1]),
    "number of reasons": lambda c: c["lazy_lightning"].update(reasons=[1]),
    "probe": lambda c: c["lazy_lightning"].update(probe=3),
    "probe.x": lambda c: c["lazy_lightning"]["probe"].update(x=torch.zeros(2, 9)),
    "probe.layers": lambda c: c["lazy_lightning"]["probe"].update(layers={"hidden.0": "a"}),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_checkpoint_without_digest_is_refused_in_one_sentence(tmp_path, trained, what):
    content = torch.load(trained.folder / "checkpoint.ckpt")
    TAMPERED[what](content)
    content["lazy_lightning"].pop("digest")
    torch.save(content, tmp_path / "tampered.ckpt")
    with pytest.raises(ConfigError, match=r"tampered\.ckpt") as raised:
        start_of(tmp_path / "a", flow(alpha=[0.1, 0.3], seeds=2, init=str(tmp_path / "tampered.ckpt")))
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------- what is refused


REFUSED = {
    "missing": ({"init": "no.pt"}, "there is no file no.pt"),
    "seed": ({"init": "RUN", "seeds": [5], "alpha": 0.1}, "no member of alpha 0.1 and seed 5.* seeds \\[0, 1\\]"),
    "alpha": ({"init": "RUN", "alpha": 2.0}, "no member of alpha 2 .* alphas \\[0.1, 0.3\\].* by init_alpha"),
    "alone": ({"init_alpha": 2.0}, "init_alpha is 2.0, but init is null"),
    "layers": (
        {"init": "RUN", "network": functools.partial(FC, width=7, depth=1), "alpha": 0.1},
        "has shape \\(6, 4\\) for hidden.0.weight, which has shape \\(7, 4\\)",
    ),
    "copies": ({"init": "STATE", "seeds": 2}, "of which the seeds \\[0, 1\\] would be copies: set seeds to 1"),
    "names": ({"init": "STATE"}, "has no hidden.0.weight, which has shape \\(6, 4\\)"),
    "fresh": ({"init": "RUN", "alpha": 0.1, "init_fresh": ["top"]}, "init_fresh names top, but the layers .* head"),
    "text": ({"init": "TEXT"}, "is no file of tensors alone, and other objects are not loaded"),
    "no members": ({"init": "STATE", "init_alpha": 0.1}, "init_alpha is 0.1, but .* leave out init_alpha"),
    "complex": ({"init": "COMPLEX"}, "complex numbers for hidden.0.weight, expected real weights"),
    "empty": ({"init": "META"}, "hidden.0.weight in .* has no values, expected an array of numbers"),
    "not finite": ({"init": "NAN"}, "weights that are not finite"),
    "vast": ({"init": "VAST"}, "shape \\(1000000000000,\\) for hidden.0.weight, which has shape"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, trained, options, message):
    torch.save({"other.weight": torch.zeros(6, 4)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("weights")
    weight = torch.ones(6, 4)
    odd = {"COMPLEX": weight + 1j, "META": weight.to("meta"), "VAST": torch.zeros(1).expand(10**12), "NAN": weight / 0}
    for name, tensor in odd.items():
        torch.save({"hidden.0.weight": tensor, "head.weight": torch.ones(1, 6)}, tmp_path / name)
    places = {"RUN": trained.folder, "STATE": tmp_path / "state.pt", "TEXT": tmp_path / "text.pt"}
    places |= {name: tmp_path / name for name in odd}
    given = dict(options)
    network = given.pop("network", NETWORK)
    if "init" in given:
        given["init"] = str(places.get(given["init"], given["init"]))
    with pytest.raises(ConfigError, match=message):
        watch(tmp_path / "run", model=FlowModule(network, stop=STOP, **given))


def test_identity_of_members_is_another_only_with_init():
    def config(**given):
        return {"model": {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"dt": 1.0, **given}}}

    plain = configuration.family(config())
    assert configuration.family(config(init=None, init_alpha=None, init_fresh=None)) == plain
    assert len({plain, configuration.family(config(init="a")), configuration.family(config(init="b"))}) == 3


def test_command_line_refuses_before_it_makes_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "there is no file runs/none" in error_of([*QUIET, "--model.init=runs/none"], capsys)
    assert not (tmp_path / "runs").exists()
