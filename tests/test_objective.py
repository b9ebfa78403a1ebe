"""The objective against its formula, and by chunks of any size."""

import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from problems import copied, problem

from lazy_lightning.errors import ConfigError
from lazy_lightning.objective.full_batch import chunks, drop_single_output, raw_outputs

N = 6
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
REAL = torch.linspace(-1, 2, N, dtype=torch.float64)
CASES = {
    **{
        f"{loss} binary": {"loss": loss}
        for loss in ("hinge", "softhinge(20)", "quadratic_hinge", "mse", "cross_entropy")
    },
    **{
        f"{loss} classes": {"loss": loss, "y": CLASSES, "num_outputs": 3}
        for loss in ("hinge", "softhinge(20)", "quadratic_hinge", "mse", "cross_entropy")
    },
    "mse regression": {"loss": "mse", "y": REAL, "margins": False},
    "mse regressions": {"loss": "mse", "y": torch.stack([REAL, REAL**2], 1), "num_outputs": 2, "margins": False},
}


def setting(name, **options):
    return problem((0.1, 10.0), (0, 1), **{**CASES[name], **options})


def evaluate(base):
    """Away from w0, where F would be 0."""
    w = (base.w0 * 1.1).requires_grad_(True)
    return base.objective.backward(w), w.grad, w


@pytest.mark.parametrize("name", CASES)
@given(chunk_size=st.integers(1, N + 2))
def test_chunks_change_nothing(name, chunk_size):
    base = setting(name)
    whole, gradient, _ = evaluate(base)
    part, by_chunks, _ = evaluate(copied(base, chunk_size=chunk_size))
    for row in range(4):
        assert_close(by_chunks[row], gradient[row])
        assert_close(part.loss[row], whole.loss[row])
        assert_close(part.outputs[row], whole.outputs[row])
        if whole.margins is not None:
            assert_close(part.margins[row], whole.margins[row])


@pytest.mark.parametrize("centering", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_the_formula(name, centering):
    """L = 1/(alpha^2 n) sum ell(alpha (f - f0), y), by autograd of the formula as it stands."""
    base = setting(name, centering=centering)
    o = base.objective
    found, gradient, w = evaluate(base)
    point = w.detach().clone().requires_grad_(True)
    f, f0 = o.network(point, o.x), o.network(base.w0, o.x)
    F = drop_single_output(o.centering.alpha.view(-1, 1, 1) * (f - f0 if centering else f))
    loss = o.loss.per_sample(F, o.y).mean(-1) / o.centering.alpha**2
    loss.sum().backward()
    for row in range(4):
        assert_close(found.loss[row], loss[row])
        assert_close(gradient[row], point.grad[row])
        assert_close(found.outputs[row], F[row])


def test_centred_outputs_start_at_exactly_zero():
    base = setting("hinge binary")
    evaluation = base.objective.backward(base.w0.clone().requires_grad_(True))
    assert not evaluation.outputs.any()


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
def test_selected_members(rows):
    base = setting("softhinge(20) binary")
    whole, gradient, _ = evaluate(base)
    part, partial, _ = evaluate(base.member(rows))
    for row, member in enumerate(rows):
        assert_close(partial[row], gradient[member])
        assert_close(part.loss[row], whole.loss[member])


def test_margins_on_request():
    assert evaluate(setting("mse binary", margins=False))[0].margins is None


@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_raw_outputs_by_chunks(chunk_size):
    o = setting("mse classes").objective
    w = setting("mse classes").w0
    assert_close(raw_outputs(o.network, w, o.x, {}, chunk_size), o.network(w, o.x))


def test_chunk_size_refused():
    with pytest.raises(ConfigError, match="chunk_size"):
        chunks(5, 0)
