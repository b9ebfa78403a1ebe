"""KernelModule through a plain Trainer: against the exact solution, the lazy network, and its own checkpoints."""

import copy
import functools
import json

import pytest
import torch
import torch.nn.functional as nnf
from closeness import assert_close
from fits import assert_same_curves, digits, fit, module
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback
from torch import nn

from lazy_lightning import memory
from lazy_lightning.callbacks import ClosingSummary, RunCheckpoint
from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.flow import ConstantStep, StopReason
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.ntk import features as features_room
from lazy_lightning.ntk.frozen_kernel import frozen_kernels
from lazy_lightning.ntk.regression import KernelRegression

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
NET = functools.partial(FC, width=12, depth=2)


class StopAt(Callback):
    """Asks the trainer to stop after some bursts."""

    def __init__(self, bursts):
        self.left = bursts

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        trainer.should_stop = trainer.should_stop or self.left == 0


def kernel(network=NET, **options):
    return KernelModule(network, **{"stop": StoppingCriteria(max_steps=60), **options})


def few(**options):
    return digits(**{"n_train": 20, "n_test": 15, **options})


def run(folder, model=None, data=None, **options):
    """A flow on a kernel, 20 samples; keywords that a trainer does not know go to the module."""
    of_trainer = {name: options.pop(name) for name in ("callbacks", "precision", "ckpt_path") if name in options}
    return fit(folder, model or kernel(**options), data or few(), **of_trainer)


def euler(dt, t_max, **options):
    """Steps of one length."""
    return {"controller": ConstantStep(), "dt": dt, "stop": StoppingCriteria(t_max=t_max), **options}


def kernels_of(model, weights=None, kind="full"):
    """Theta of training samples, and of test with training samples."""
    w, x, test = model.frozen if weights is None else weights, model.data.train.x, model.data.test.x
    options = {"outputs": model.data.num_outputs, "kernel_outputs": kind}
    take = functools.partial(frozen_kernels, model.network, w, model.member_buffers(), **options)
    return take(x, None), take(test, x)


def fitted(model):
    """F on the training set, as the flow reports it."""
    return model.flow.flow_state.outputs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learnt features in part of its members, with its checkpoint."""
    folder = tmp_path_factory.mktemp("network")
    return fit(folder, module(**MEMBERS), few(), callbacks=[RunCheckpoint()])


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A flow on the initial kernel, with its checkpoint."""
    return run(tmp_path_factory.mktemp("kernel"), callbacks=[RunCheckpoint(), ClosingSummary()], **MEMBERS)


def checkpoint_of(finished):
    return str(finished.folder / "checkpoint.ckpt")


# ---------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("centering", [True, False], ids=["centred", "from f0"])
@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_squared_loss_approaches_its_exact_solution(tmp_path, tau, centering):
    """The error halves with the step, and what is left by extrapolation is of second order."""
    options = {"loss": "mse", "tau": tau, "centering": centering, "alpha": 0.5, "seeds": 2}
    runs = [run(tmp_path / str(dt), **euler(dt, 2.0, **options)).module for dt in (0.02, 0.01)]
    m = runs[0]
    F0 = None if centering else (0.5 * m.raw_outputs(m.w0, part.x)[..., 0] for part in (m.data.train, m.data.test))
    start, test_start = F0 or (None, None)
    theta, cross = kernels_of(m)
    exact = KernelRegression(theta, m.data.train.y, cross, start=start, test_start=test_start)
    for solution, outputs in (
        (exact.train_outputs(2.0, tau), [fitted(m) for m in runs]),
        (exact.test_outputs(2.0, tau), [m(m.data.test.x) for m in runs]),
    ):
        coarse, fine = ((F - solution).norm() for F in outputs)
        assert coarse / fine == pytest.approx(2.0, abs=0.06)
        assert_close(2 * outputs[1] - outputs[0], solution, rtol=3e-4)


@pytest.mark.parametrize("kind", ["full", "mean"])
def test_several_outputs_approach_their_exact_solution(tmp_path, kind):
    data = few(labels="multiclass")
    options = {"loss": "mse", "kernel_outputs": kind}
    runs = [run(tmp_path / str(dt), data=data, **euler(dt, 2.0, **options)).module for dt in (0.02, 0.01)]
    theta, cross = kernels_of(runs[0], kind=kind)
    exact = KernelRegression(theta, nnf.one_hot(data.train.y, 10).double(), cross)
    assert_close(2 * fitted(runs[1]) - fitted(runs[0]), exact.train_outputs(2.0), rtol=1e-3)
    outside = [m(data.test.x) for m in runs]
    assert_close(2 * outside[1] - outside[0], exact.test_outputs(2.0), rtol=1e-3)


@pytest.mark.parametrize("loss", ["softhinge(20)", "cross_entropy"])
def test_test_outputs_are_those_of_the_training_outputs(tmp_path, loss):
    """F(x) = Theta(x, X) Theta^-1 F(X), whatever the loss."""
    m = run(tmp_path, loss=loss, data=few(labels="multiclass"), stop=StoppingCriteria(max_steps=80)).module
    theta, cross = kernels_of(m)
    expected = cross @ torch.linalg.solve(theta, fitted(m).reshape(1, -1, 1))
    assert_close(m(m.data.test.x).reshape(1, -1, 1), expected, rtol=1e-10)
    assert_close(m(m.data.train.x), fitted(m), rtol=1e-10)


def test_the_lazy_network_approaches_it_as_one_over_alpha(tmp_path):
    options = euler(0.05, 2.0, alpha=[1e2, 1e3, 1e5])
    network, frozen = (run(tmp_path / type(m).__name__, m).module for m in (module(**options), kernel(**options)))
    for F, limit in ((fitted(network), fitted(frozen)), (network(few_test()), frozen(few_test()))):
        distance = (F - limit).norm(dim=1) / limit.norm(dim=1)
        assert 1e-6 < distance[0] < 1e-1
        assert float(distance[0] / distance[1]) == pytest.approx(10, rel=0.1)
        assert distance[2] < 2e-3 * distance[0]


def few_test():
    data = few()
    data.setup()
    return data.test.x


def test_same_run_as_the_linearised_network(tmp_path):
    """The same table but for the last digits, although the weights are others; it has buffers of its own."""
    linear = functools.partial(LinearizedNetwork, NET, tangent=True)
    one, other = (run(tmp_path / type(m).__name__, m) for m in (kernel(**MEMBERS), module_of(linear, **MEMBERS)))
    for column in ("observation", "tried", "accepted", "reason"):
        assert one.table[column].tolist() == other.table[column].tolist()
    for column in ("t", "train/loss", "test/loss", "train/margin_min", "test/error", "gradient_norm", "t1/half_loss"):
        assert_close(*(torch.tensor(r.table[column].tolist(), dtype=torch.float64) for r in (one, other)), rtol=1e-9)


def module_of(network, **options):
    model = module(**options)
    model.factory = network
    return model


def test_networks_with_buffers(tmp_path):
    """The kernel of a first-order network is that of the network; its w0 lie in buffers."""
    one = run(tmp_path / "network", **MEMBERS)
    other = run(tmp_path / "linear", kernel(functools.partial(LinearizedNetwork, NET), **MEMBERS))
    assert other.module.member_buffers()
    assert_close(fitted(other.module), fitted(one.module), rtol=1e-10)
    assert_close(other.module(few_test()), one.module(few_test()), rtol=1e-10)


def test_last_layer_alone_is_regression_on_its_inputs(tmp_path):
    m = run(tmp_path, layers="last").module
    net, caught = copy.deepcopy(m.network.template), []
    net.load_state_dict({name: value[0] for name, value in m.network.unpack(m.frozen).items()})
    net.head.register_forward_hook(lambda module, args, output: caught.append(args[0]))
    net(m.data.train.x)
    hidden = caught[0].detach() / 12**0.5
    phi = m.objective.features[0]
    assert_close(phi @ phi.mT, hidden @ hidden.mT, rtol=1e-12)
    assert m.title == "flow on the part of the last layer in the tangent kernel at initialisation"


def test_layers_add_up(tmp_path):
    every = kernels_of(run(tmp_path / "all").module)[0]
    parts = [run(tmp_path / name, layers=[name]).module.objective.features for name in ("hidden.0", "hidden.1", "head")]
    assert_close(sum(phi @ phi.mT for phi in parts), every, rtol=1e-12)


def test_margins_are_met(tmp_path):
    finished = run(tmp_path, stop=StoppingCriteria(), **MEMBERS)
    assert finished.module.flow.reasons == [StopReason.MARGINS_MET] * 4
    assert finished.last("train/error") == [0.0] * 4
    assert_close(fitted(finished.module)[:2], fitted(finished.module)[2:], rtol=1e-10)


def test_half_the_digits(tmp_path):
    single, double = (run(tmp_path / p, precision=p, **euler(0.05, 1.0, **MEMBERS)) for p in ("32-true", "64-true"))
    assert single.module.w.dtype == single.module.objective.features.dtype == torch.float32
    assert_close(fitted(single.module), fitted(double.module).float(), rtol=1e-4)
    assert_close(single.module(few_test()), double.module(few_test()).float(), rtol=1e-3)


# ---------------------------------------------------------------------- observers and the record


def test_observers_of_the_network_are_passed_over(ended):
    columns = set(ended.table.columns)
    assert not [name for name in columns if name.startswith(("displacement", "activation", "tangent"))]
    assert {"t1/half_loss", "train/loss", "test/error", "t", "gradient_norm"} <= columns


def test_t1_is_that_of_every_alpha(tmp_path):
    """t1 measures how long the loss takes, and a kernel takes as long at every alpha."""
    t1 = run(tmp_path, stop=StoppingCriteria(max_steps=150), **MEMBERS).last("t1/half_loss")
    assert t1[:2] == pytest.approx(t1[2:], rel=1e-9)


def test_columns_are_those_of_the_outputs(ended):
    m = ended.module
    F, y = m(few_test()), m.data.test.y
    assert ended.last("test/error") == (F * y <= 0).double().mean(dim=1).tolist()
    assert_close(torch.tensor(ended.last("test/loss"), dtype=torch.float64), m.loss.per_sample(F, y).mean(dim=1))


def test_summary_says_what_it_was(ended):
    summary = json.loads((ended.folder / "summary.json").read_text())
    assert summary["model"] == "flow on the tangent kernel at initialisation"
    assert [group["regime"] for group in summary["groups"]] == ["kernel", "kernel"]


# ---------------------------------------------------------------------- the end of a run


def test_kernel_at_the_end_is_of_the_trained_weights(tmp_path, trained):
    m = run(tmp_path, at="end", checkpoint=checkpoint_of(trained), **MEMBERS).module
    assert_close(m.frozen, trained.module.w.detach(), rtol=0)
    phi, (initial, _) = m.objective.features, kernels_of(m, trained.module.w0)
    drift = (phi @ phi.mT - initial).flatten(1).norm(dim=1) / initial.flatten(1).norm(dim=1)
    assert (drift[:2] > 10 * drift[2:]).all()  # alpha = 0.1 has learnt features, alpha = 10 is lazy
    assert drift[2:].max() < 0.05
    assert m.title.endswith(f"at the end of {trained.folder}/checkpoint.ckpt")


def test_initial_weights_of_a_checkpoint_are_the_initial_weights(tmp_path, trained, ended):
    again = run(tmp_path, at="init", checkpoint=checkpoint_of(trained), **MEMBERS)
    assert_same_curves(again.table, ended.table)


def test_kernel_at_the_end_starts_without_centering_where_the_network_did(tmp_path, trained):
    m = run(tmp_path, at="end", checkpoint=checkpoint_of(trained), centering=False, **MEMBERS).module
    f0 = m.raw_outputs(trained.module.w0, m.data.train.x) * m.centering.column(torch.float64)
    assert_close(m.objective.start, f0, rtol=0)


def test_end_is_resumed_and_evaluated_without_the_run_that_it_came_from(tmp_path, trained):
    """A checkpoint holds the weights whose kernel it is."""
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((trained.folder / "checkpoint.ckpt").read_bytes())
    options = {"at": "end", "checkpoint": str(moved), "centering": False, **MEMBERS}
    whole = run(tmp_path / "whole", **options)
    run(tmp_path / "cut", callbacks=[StopAt(3), RunCheckpoint()], **options)
    moved.unlink()
    resumed = run(tmp_path / "rest", ckpt_path=tmp_path / "cut/checkpoint.ckpt", callbacks=[RunCheckpoint()], **options)
    assert_same_curves(resumed.table, whole.table)
    assert evaluated(resumed, kernel(**options)) == pytest.approx(test_losses(whole))


# ---------------------------------------------------------------------- resuming and evaluating


def evaluated(finished, model, data=None, **trainer):
    """The test losses by alpha, of a checkpoint in a new module."""
    options = {"ckpt_path": checkpoint_of(finished), "verbose": False, **trainer}
    (values,) = finished.trainer.test(model, datamodule=data or few(), **options)
    return [values[f"test/loss/alpha={alpha:g}"] for alpha in (0.1, 10.0)]


def test_losses(finished):
    """The means over the seeds at the end of the fit."""
    last = finished.last("test/loss")
    return [sum(last[:2]) / 2, sum(last[2:]) / 2]


test_losses.__test__ = False


@pytest.mark.parametrize("case", [{}, {"tau": 0.5}, {"centering": False, "precision": "32-true"}], ids=str)
@pytest.mark.parametrize("bursts", [1, 9])
def test_resumed_run_has_the_undisturbed_table(tmp_path, case, bursts):
    options = {**MEMBERS, **case, "stop": StoppingCriteria(margin=0.3, margin_share=0.9, max_steps=90)}
    whole = run(tmp_path / "whole", **options)
    run(tmp_path / "cut", callbacks=[StopAt(bursts), RunCheckpoint()], **options)
    rest = run(tmp_path / "rest", ckpt_path=tmp_path / "cut/checkpoint.ckpt", **options)
    assert whole.table.observation.max() > 9
    assert_same_curves(rest.table, whole.table)


def test_checkpoint_loads_without_pickled_code(ended):
    saved = torch.load(checkpoint_of(ended), weights_only=True)
    assert torch.equal(saved["state_dict"]["w"], ended.module.w)
    assert saved["lazy_lightning"]["alphas"] == [0.1, 0.1, 10.0, 10.0]


def test_evaluated_from_a_checkpoint(ended):
    assert evaluated(ended, kernel(**MEMBERS)) == pytest.approx(test_losses(ended), rel=1e-12)
    fresh = kernel(**MEMBERS)
    (predicted,) = ended.trainer.predict(fresh, datamodule=few(), ckpt_path=checkpoint_of(ended))
    assert_close(predicted.T, ended.module(few_test()))
    ended.trainer.limit_val_batches = 1.0
    values = ended.trainer.validate(fresh, datamodule=few(n_val=7), ckpt_path=checkpoint_of(ended), verbose=False)[0]
    data = few(n_val=7)
    data.setup()
    losses = ended.module.loss.per_sample(ended.module(data.val.x), data.val.y).mean(dim=1)
    assert values["val/loss/alpha=10"] == pytest.approx(float(losses[2:].mean()), rel=1e-12)


def test_evaluated_on_a_machine_whose_eigenvectors_are_others(ended, monkeypatch):
    """Signs of eigenvectors are the decomposition's choice: what has been learnt must not depend on them."""
    plain = features_room.eigensystem

    def turned(matrix):
        values, vectors = plain(matrix)
        return values, vectors * torch.where(torch.arange(vectors.shape[-1]) % 3 == 0, 1.0, -1.0)

    monkeypatch.setattr(features_room, "eigensystem", turned)
    assert evaluated(ended, kernel(**MEMBERS)) == pytest.approx(test_losses(ended))


@pytest.mark.parametrize("change", [{"train_seed": 1}, {"test_seed": 3}, {"sphere": False}], ids=str)
def test_other_training_samples_are_not_evaluated(ended, change):
    """What a kernel flow learns is attached to them."""
    with pytest.raises(ConfigError, match=r"the tangent kernel is another than.*use the config\.yaml"):
        evaluated(ended, kernel(**MEMBERS), few(**change))


def test_other_labels_are_evaluated(ended):
    values = evaluated(ended, kernel(**MEMBERS), few(labels={c: 1 if c % 2 else -1 for c in range(10)}))
    assert values != pytest.approx(test_losses(ended))


def test_fitted_module_keeps_its_training_samples(tmp_path):
    """Evaluated on the data of another split right after the fit, it is still the model that was trained."""
    finished = run(tmp_path, **MEMBERS)
    expected = finished.module(few_test())
    finished.trainer.test(finished.module, datamodule=few(train_seed=1, test_seed=1), verbose=False)
    assert_close(finished.module(few_test()), expected, rtol=0)


def test_fitted_twice_starts_again_also_on_other_samples(tmp_path):
    model = kernel(**MEMBERS)
    run(tmp_path / "first", model, few(train_seed=1))
    again = run(tmp_path / "second", model)
    assert_same_curves(again.table, run(tmp_path / "fresh", **MEMBERS).table)
    assert_close(again.module(few_test()), run(tmp_path / "other", **MEMBERS).module(few_test()), rtol=0)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at": "end"}, "needs a run that has ended: fit first, then give its checkpoint.ckpt as --ckpt_path"),
        ({"at": "middle"}, "at is 'middle', expected init or end"),
        ({"kernel_outputs": "trace"}, "kernel_outputs is 'trace', expected full or mean"),
        ({"loss": "mse", "stop": None}, "nothing would stop this run"),
    ],
    ids=str,
)
def test_refused_when_configured(options, said):
    with pytest.raises(ConfigError, match=said):
        kernel(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": [0.1, 1.0], "seeds": 2}, r"holds members of alpha \[0.1, 10.0\].*other than.*config.yaml"),
        ({"alpha": [0.1, 10.0], "seeds": [0, 2]}, r"seeds \[0, 1\], other than"),
        ({**MEMBERS, "network": functools.partial(FC, width=13, depth=2)}, r"weights of shape \(4, 924\).*have \(4, 1"),
        ({**MEMBERS, "checkpoint": "none.ckpt"}, "there is no checkpoint none.ckpt"),
        ({**MEMBERS, "layers": ["tail"]}, r"layers names \['tail'\], expected some of hidden.0, hidden.1, head"),
        ({**MEMBERS, "layers": []}, "layers"),
    ],
    ids=["alphas", "seeds", "shape", "missing", "layer", "no layers"],
)
def test_refused_when_fitted(tmp_path, trained, options, said):
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, **{"at": "end", "checkpoint": checkpoint_of(trained), **options})


def test_checkpoint_of_a_kernel_has_no_kernel(tmp_path, ended):
    with pytest.raises(ConfigError, match="is of a flow on a kernel, and has no trained network: give the checkpoint"):
        run(tmp_path, at="end", checkpoint=checkpoint_of(ended), **MEMBERS)


@pytest.mark.parametrize("change", [{"layers": "last"}, {"kernel_outputs": "mean"}, {"loss": "hinge"}], ids=str)
def test_another_kernel_or_loss_is_not_resumed(tmp_path, ended, change):
    with pytest.raises(ConfigError, match="resume with the run's own config"):
        run(tmp_path, ckpt_path=checkpoint_of(ended), **MEMBERS, **change)


def test_low_rank_needs_a_limit(tmp_path):
    with pytest.raises(ConfigError, match=r"the last layer in .* has rank 12 for 20 outputs, .* model.stop.max_steps"):
        run(tmp_path / "none", layers="last", stop=StoppingCriteria())
    assert run(tmp_path / "steps", layers="last", stop=StoppingCriteria(max_steps=5)).last("tried") == [5]
    assert run(tmp_path / "share", layers="last", stop=StoppingCriteria(t_max=0.5)).last("t") == [0.5]


class Kinked(nn.Module):
    """Finite, with a slope that is not."""

    def __init__(self, input_shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, x):
        return (0 * (x.flatten(1) * self.weight).sum(1)).abs().sqrt()


def test_kernel_that_is_not_finite_is_told(tmp_path):
    with pytest.raises(ConfigError, match="has entries that are not finite: look at weights and data"):
        run(tmp_path, kernel(Kinked))


def test_kernel_too_large_is_told_before_it_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 100_000)
    with pytest.raises(RunError, match=r"decomposing 1 kernel of 200 x 200 .* free on cpu: .* kernel_outputs mean"):
        run(tmp_path, loss="cross_entropy", data=few(labels="multiclass"))


# ---------------------------------------------------------------------- its arguments and initial weights


def test_initial_weights_stay_those_of_the_networks(ended):
    """The flow of the kernel's model starts at zeros, which are not called w0."""
    m = ended.module
    assert m.w0.shape == m.frozen.shape
    assert torch.equal(m.w0, m.frozen)
    assert not m.flow_origin.any()
    assert m.flow.origin.shape == m.w.shape


@pytest.mark.parametrize("centering", [True, False])
def test_a_checkpoint_of_0_1_0_gets_its_initial_weights_back(tmp_path, centering):
    """Such a checkpoint holds zeros as w0 and, without centering, the networks' weights as ``initial``."""
    m = run(tmp_path, centering=centering, stop=StoppingCriteria(max_steps=3)).module
    state = {"w": m.w.detach().clone(), "w0": torch.zeros_like(m.w.detach()), "frozen": m.frozen.clone()}
    if not centering:
        state["initial"] = m.w0.clone()
    m._restore_initial_weights(state)
    assert sorted(state) == ["frozen", "w", "w0"]
    assert torch.equal(state["w0"], m.w0)


def test_arguments_of_the_flow_are_parsed_and_documented():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(KernelModule, "model", fail_untyped=False)
    found = {action.dest.removeprefix("model."): action for action in parser._actions}
    assert {"network", "loss", "alpha", "cuda_graphs", "at", "kernel_outputs"} <= set(found)
    assert not {"args", "kwargs"} & set(found)
    assert all(found[name].help for name in ("loss", "alpha", "centering", "dt", "at"))


def test_arguments_that_are_passed_on_are_recorded_with_their_defaults():
    made, flow = (kind(NET, "hinge", alpha=2.0).constructor_arguments for kind in (KernelModule, FlowModule))
    assert {name: made[name] for name in flow} == flow
    assert set(made) - set(flow) == {"at", "checkpoint", "layers", "kernel_outputs"}
