"""A kernel as a linear model in features: the kernel comes back, lengths are kept, and nothing depends on a basis."""

import pytest
import torch
from closeness import assert_close

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.seeding import generator


def jacobian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator("tests", seed))


def gram(a, b=None):
    return a @ (a if b is None else b).mT


FULL, LOW, MEMBERS = (7, 20), (9, 3), (2, 3, 6, 10)


@pytest.mark.parametrize("shape", [FULL, LOW, MEMBERS, (1, 4)], ids=str)
def test_products_are_the_kernel(shape):
    kernel = gram(jacobian(*shape))
    features = KernelFeatures.of(kernel)
    assert_close(gram(features.train), kernel, rtol=1e-13)
    assert features.rank.tolist() == torch.full(shape[:-2], min(shape[-2:])).tolist()


@pytest.mark.parametrize("shape", [FULL, LOW, MEMBERS], ids=str)
def test_other_samples_have_their_kernel_with_the_training_samples(shape):
    j, other = jacobian(*shape), jacobian(*shape[:-2], 4, shape[-1], seed=1)
    features = KernelFeatures.of(gram(j))
    assert_close(gram(features.of_others(gram(other, j)), features.train), gram(other, j), rtol=1e-12)


def test_training_samples_are_as_any_others():
    kernel = gram(jacobian(*LOW))
    features = KernelFeatures.of(kernel)
    assert_close(features.of_others(kernel), features.train, rtol=1e-7)  # the root of the rounding of K


@pytest.mark.parametrize("shape", [FULL, LOW, MEMBERS], ids=str)
def test_lengths_and_gradients_are_those_of_the_weights(shape):
    """dw = J^T u moves F by J dw; v = Phi u moves it as far, is as long, and Phi^T slope is as long as J^T slope."""
    j, u = jacobian(*shape), jacobian(*shape[:-1], 1, seed=1)
    phi = KernelFeatures.of(gram(j)).train
    dw, v = j.mT @ u, phi @ u
    assert_close(v.norm(dim=-2), dw.norm(dim=-2))
    assert_close(phi @ v, j @ dw, rtol=1e-13)
    assert_close((phi.mT @ (u**3)).norm(dim=-2), (j.mT @ (u**3)).norm(dim=-2), rtol=1e-13)


def test_repeated_samples_have_equal_features():
    distinct = jacobian(5, 12)
    kernel = gram(distinct[[0, 1, 2, 3, 4, 1, 1]])
    features = KernelFeatures.of(kernel)
    assert int(features.rank) == 5
    assert_close(features.train[[5, 6]], features.train[[1, 1]], rtol=1e-13)
    assert_close(features.of_others(kernel[[1]]), features.of_others(kernel[[5]]), rtol=1e-13)


@pytest.mark.parametrize("spectrum", [[1.0] * 8, [4.0] * 3 + [1.0] * 5, [100.0, *[1e-6] * 7]], ids=str)
def test_equal_eigenvalues_leave_no_choice(spectrum):
    """Weights that one machine has trained mean the same on another, which rounds otherwise."""
    turn = torch.linalg.qr(jacobian(8, 8))[0]
    kernel = turn @ torch.tensor(spectrum, dtype=torch.float64).diag() @ turn.mT
    noise = 1e-15 * kernel.abs().max() * jacobian(8, 8, seed=1)
    one, other = (KernelFeatures.of(k) for k in (kernel, kernel + noise + noise.mT))
    assert_close(other.train, one.train, rtol=1e-9)  # what the root makes of it
    cross = jacobian(3, 8, seed=2)
    assert_close(other.of_others(cross) @ other.train, one.of_others(cross) @ one.train, rtol=1e-8)


def test_order_of_the_samples_does_not_matter():
    kernel, order = gram(jacobian(*FULL)), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    shuffled = KernelFeatures.of(kernel[order][:, order])
    assert_close(shuffled.train, KernelFeatures.of(kernel).train[order][:, order], rtol=1e-12)


def test_members_are_those_alone():
    kernels = gram(jacobian(*MEMBERS))
    together = KernelFeatures.of(kernels)
    assert_close(together.train[1, 2], KernelFeatures.of(kernels[1, 2]).train)


def test_half_the_digits():
    j, other = jacobian(30, 8).float(), jacobian(5, 8, seed=1).float()
    features = KernelFeatures.of(gram(j))
    outside = features.of_others(gram(other, j))
    assert features.train.dtype == outside.dtype == torch.float32
    assert int(features.rank) == 8  # rounding has given the kernel all 30
    assert_close(gram(features.train), gram(j))
    assert_close(gram(outside, features.train), gram(other, j))


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_any_unit(size):
    kernel = gram(jacobian(*FULL))
    assert_close(gram(KernelFeatures.of(size * kernel).train), size * kernel, rtol=1e-13)


def test_a_kernel_of_zeros_has_no_directions():
    features = KernelFeatures.of(torch.zeros(3, 3))
    assert int(features.rank) == 0
    assert_close(features.train, torch.zeros(3, 3))
    assert_close(features.of_others(torch.ones(1, 3)), torch.zeros(1, 3))


def test_a_member_that_is_not_finite_leaves_the_others_alone():
    kernels = gram(jacobian(2, 4, 9))
    alone = KernelFeatures.of(kernels[1]).train
    kernels[0, 1, 2] = torch.nan
    train = KernelFeatures.of(kernels).train
    assert train[0].isnan().all()
    assert_close(train[1], alone)


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "the eigenvalue -1 beside 3, expected none below zero"),
        (-torch.eye(2), "the eigenvalue -1 beside -1"),
        (torch.stack([torch.eye(2) * torch.nan, -torch.eye(2)]), "the eigenvalue -1 beside -1"),
        (torch.ones(2, 3), "shape"),
        (torch.ones(3), "shape"),
    ],
    ids=["indefinite", "negative", "beside NaN", "not square", "no matrix"],
)
def test_refused(kernel, said):
    with pytest.raises(ConfigError, match=said):
        KernelFeatures.of(kernel)
