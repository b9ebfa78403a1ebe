"""The exact solutions against matrix exponentials, an integrator, scikit-learn, and a flow of weights."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from sklearn.kernel_ridge import KernelRidge

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import ConstantStep, Evaluation, MomentumFlow, TimeReached
from lazy_lightning.ntk.joint_kernel import joint_kernel
from lazy_lightning.ntk.oscillator import decay, integrated_decay
from lazy_lightning.ntk.regression import KernelRegression

INF = float("inf")
TAUS = pytest.mark.parametrize("tau", [0.0, 0.05, 5.0], ids=["gradient flow", "over-damped", "oscillating"])


def number(*values):
    """A float64 tensor, by way of no float32."""
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kernels(n=7, m=4, members=(), rank=None, seed=0):
    """Theta of n samples, and of m others with them."""
    features = draw(*members, n + m, rank or 2 * n, seed=seed)
    joint = features @ features.mT
    return joint[..., :n, :n], joint[..., n:, :n]


def by_matrix_exponential(K, K_test, y, start, test_start, t, tau):
    """Training and test outputs of one member and one column, by one linear system with the constants aboard."""
    n, m = len(K), len(K_test)
    zero, one = np.zeros, np.eye
    push = np.vstack([K, K_test]) / n  # on all outputs, by y - F
    force = np.hstack([-push, zero((n + m, m)), (push @ y)[:, None]])
    if tau == 0:
        system = np.vstack([force, zero((1, n + m + 1))])
        state = np.concatenate([start, test_start, [1.0]])
    else:
        size = n + m
        system = np.vstack(
            [
                np.hstack([zero((size, size)), one(size), zero((size, 1))]),
                np.hstack([force[:, :size], -one(size), force[:, size:]]) / tau,
                zero((1, 2 * size + 1)),
            ]
        )
        state = np.concatenate([start, test_start, zero(size), [1.0]])
    end = expm(t * system) @ state
    return end[:n], end[n : n + m]


# ---------------------------------------------------------------------- one direction


def oscillator(k, t, tau):
    """r and g by the power series of tau r'' + r' = -k r and tau g'' + g' = r from rest, in 200 digits.

    Its terms grow as far as e^(t/tau), at most e^150 here, before they cancel.
    """
    with localcontext(prec=200):
        k, t, tau = Decimal(k), Decimal(t), Decimal(tau)
        r, g = [Decimal(1), Decimal(0)], [Decimal(0), Decimal(0)]
        for m in range(700):  # the sum of (150)^m/m!, and far beyond
            below = tau * (m + 1) * (m + 2)
            r.append((-k * r[m] - (m + 1) * r[m + 1]) / below)
            g.append((r[m] - (m + 1) * g[m + 1]) / below)
        return [float(sum(c * t**m for m, c in enumerate(series))) for series in (r, g)]


@pytest.mark.parametrize("t", [1e-8, 1e-3, 0.3, 1.0, 4.0, 15.0])
def test_damped_oscillator_on_both_sides_of_critical_damping(t):
    tau = 0.7
    near = [0.25 / tau * (1 + e) for e in (-0.5, -1e-4, -1e-9, -1e-15, 0.0, 1e-15, 1e-9, 1e-4, 0.5)]
    for k in [0.0, 1e-20, 1e-6, 0.1, *near, 3.0, 30.0]:
        r, g = oscillator(k, t, tau)
        phase = max(1.0, t * math.sqrt(k / tau))  # known to eps of itself
        assert_close(decay(number(k), number(t), tau), np.float64(r), rtol=1e-15 * phase, scale=1.0)
        assert_close(
            integrated_decay(number(k), number(t), tau), np.float64(g), rtol=2e-15 * phase
        )  # of g, however small


def test_travel_of_gradient_flow_has_all_digits():
    """t (1 - k t/2 + ...) where 1 - exp(-k t) has none."""
    for k, t in ((0.0, 5.0), (1e-30, 1e-3), (1e-17, 2.0), (1e-9, 3.0)):
        expected = t * (1 - k * t / 2 + (k * t) ** 2 / 6)
        assert_close(integrated_decay(number(k), number(t)), np.float64(expected), rtol=1e-15)


@given(
    k=st.floats(0, 1e3),
    t=st.floats(0, 1e3) | st.just(INF),
    tau=st.just(0.0) | st.floats(1e-3, 1e3),
)
def test_one_direction_is_bounded_and_consistent(k, t, tau):
    rate, time = number(k), number(t)
    r, g = decay(rate, time, tau), integrated_decay(rate, time, tau)
    assert abs(r) <= 1 + 1e-12  # energy is lost
    assert g >= 0
    if k > 0 and 1 / k < INF:
        # The phase of an oscillation, (k/tau)^(1/2) t, is known to eps of itself.
        assert_close(
            k * g, 1 - r, rtol=1e-13 * max(1.0, t * math.sqrt(k / tau) if tau > 0 and t < INF else 1.0), scale=1.0
        )
    if k == 0:
        assert r == 1


def test_short_memory_is_gradient_flow():
    k, t = torch.logspace(-3, 1, 9, dtype=torch.float64), number(2.0)
    for f in (decay, integrated_decay):
        # The lag is tau(1 - e^(-k t)) or so, to first order.
        assert_close(f(k, t, 1e-13), f(k, t), rtol=1e-11)
        assert_close(f(k, t, 1e-300), f(k, t))


# ---------------------------------------------------------------------- flows


@TAUS
@pytest.mark.parametrize("rank", [None, 3], ids=["full rank", "rank 3"])
@pytest.mark.parametrize("t", [0.0, 0.1, 3.0])
def test_flow_against_the_matrix_exponential(tau, rank, t):
    (K, K_test), y = kernels(rank=rank), draw(7)
    start, test_start = draw(7, seed=1), draw(4, seed=2)
    solved = KernelRegression(K, y, K_test, start=start, test_start=test_start)
    train, test = by_matrix_exponential(*(x.numpy() for x in (K, K_test, y, start, test_start)), t, tau)
    assert_close(solved.train_outputs(t, tau), train, rtol=1e-13)
    assert_close(solved.test_outputs(t, tau), test, rtol=1e-13)
    assert_close(solved.loss(t, tau), ((train - y.numpy()) ** 2).mean() / 2, rtol=1e-12, scale=1.0)


@TAUS
def test_flow_against_an_integrator(tau):
    """The differential equation itself, at critical damping of one direction too."""
    (K, _), y = kernels(), draw(7)
    if tau == 5.0:
        tau = 0.25 / float(KernelRegression(K, y).rates[2])
    A, target, n = K.numpy() / 7, y.numpy(), 7

    def motion(t, state):
        pull = A @ (target - state[:n])
        return pull if tau == 0 else np.concatenate([state[n:], (pull - state[n:]) / tau])

    times = np.array([0.3, 2.0])
    state = np.zeros(n if tau == 0 else 2 * n)
    path = solve_ivp(motion, (0, 2.0), state, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14)
    assert path.success
    # The integrator errs by some of its tolerance a step, over hundreds of steps.
    assert_close(KernelRegression(K, y).train_outputs(torch.tensor(times), tau), path.y[:n].T, rtol=1e-10)


def test_tiny_eigenvalues_leave_test_outputs_exact():
    """A smooth kernel, whose eigenvalues run through 1e-16 lambda_max: as a whole they count at any time.

    Their share (K_test v) g (v . y) is K_test v ~ (lambda)^(1/2), 1e-8 of the largest, times t.
    """
    x = torch.linspace(-1, 1, 24, dtype=torch.float64)
    z = number(-0.83, 0.11, 1.2)
    K, K_test = (torch.exp(-2 * (a.unsqueeze(1) - x) ** 2) for a in (x, z))
    y = draw(24).sign()
    solved = KernelRegression(K, y, K_test)
    assert float(solved.rates[-1] / solved.rates[0]) < 1e-15
    for t, tau in ((3.0, 0.0), (300.0, 0.0), (3.0, 2.0)):
        train, test = by_matrix_exponential(K.numpy(), K_test.numpy(), y.numpy(), np.zeros(24), np.zeros(3), t, tau)
        assert_close(solved.train_outputs(t, tau), train, rtol=1e-12)
        assert_close(solved.test_outputs(t, tau), test, rtol=1e-12)


@TAUS
def test_a_flow_of_weights_tends_to_the_exact_one(tau):
    """MomentumFlow on F = K^(1/2) w, whose kernel is K: first order in dt, and what dt -> 0 extrapolates to."""
    (K, _), y, t = kernels(), draw(7), 1.5
    values, vectors = torch.linalg.eigh(K)
    features = vectors * values.sqrt() @ vectors.T

    def end(dt):
        w = torch.nn.Parameter(torch.zeros(1, 7, dtype=torch.float64))
        flow = MomentumFlow(
            [w], members=1, tau=tau, controller=ConstantStep(), dt=dt, events=[TimeReached(t)], steps=round(t / dt) + 2
        )

        def closure():
            loss = (w @ features - y).square().mean(1) / 2
            loss.sum().backward()
            return Evaluation(loss)

        flow.step(closure)
        assert flow.flow_state.t.tolist() == [t]
        return (w @ features).detach()[0]

    exact = KernelRegression(K, y).train_outputs(t, tau)
    coarse, fine = (end(t / steps) for steps in (250, 500))
    errors = [float((F - exact).norm() / exact.norm()) for F in (coarse, fine, 2 * fine - coarse)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    # The next order in dt is of relative size dt/tau, at most 0.06.
    assert errors[2] < 0.06 * errors[1] < 0.06 * 2e-3


# ---------------------------------------------------------------------- the end of the flow


@pytest.mark.parametrize("rank", [None, 3], ids=["full rank", "rank 3"])
@TAUS
def test_end_is_the_minimum_norm_solution(rank, tau):
    n, m = 7, 4
    features = draw(n + m, rank or 2 * n)
    joint = features @ features.T
    y, start, test_start = draw(n), draw(n, seed=1), draw(m, seed=2)
    solved = KernelRegression(joint[:n, :n], y, joint[n:, :n], start=start, test_start=test_start)
    w = np.linalg.pinv(features[:n].numpy()) @ (y - start).numpy()
    # The solution of a linear system whose condition is that of the kernel, some hundred.
    assert_close(solved.train_outputs(INF, tau), start.numpy() + features[:n].numpy() @ w, rtol=1e-12)
    assert_close(solved.test_outputs(INF, tau), test_start.numpy() + features[n:].numpy() @ w, rtol=1e-12)
    residual = y.numpy() - start.numpy() - features[:n].numpy() @ w
    assert_close(solved.loss(INF, tau), (residual**2).mean() / 2, rtol=1e-12, scale=1.0)


@TAUS
def test_late_times_reach_the_end(tau):
    (K, K_test), y = kernels(), draw(7)
    solved = KernelRegression(K, y, K_test)
    late = 60 * max(1 / float(solved.rates[-1]), 2 * tau)
    assert_close(solved.train_outputs(late, tau), y, rtol=1e-13)
    assert_close(solved.test_outputs(late, tau), solved.test_outputs(INF, tau), rtol=1e-12)
    assert solved.loss(late, tau) < 1e-40  # the residual is followed below the rounding of y
    assert solved.loss(INF, tau) == 0


def test_what_counts_as_flat_is_cut_off_at_the_end():
    """An eigenvalue of 1e-9: real in float64, rounding in a kernel that was float32, or by one's own choice."""
    K = torch.diag(number(1.0, 1e-9))
    y = torch.ones(2).double()
    assert_close(KernelRegression(K, y).train_outputs(INF), number(1.0, 1.0))
    for cut in (KernelRegression(K.float(), y), KernelRegression(K, y, rtol=1e-8)):
        assert_close(cut.train_outputs(INF), number(1.0, 0.0))
        assert_close(cut.loss(INF), np.float64(0.25))
        assert_close(cut.ridge(0.0).train, number(1.0, 0.0))


# ---------------------------------------------------------------------- ridge


@pytest.mark.parametrize("lam", [1e-3, 0.1, 10.0])
def test_ridge_against_scikit_learn(lam):
    """Its alpha multiplies ‖w‖^2 against the sum of squares: alpha = n lam."""
    (K, K_test), Y = kernels(), draw(7, 2)
    found = KernelRegression(K, Y, K_test).ridge(lam)
    other = KernelRidge(alpha=7 * lam, kernel="precomputed").fit(K.numpy(), Y.numpy())
    assert_close(found.train, other.predict(K.numpy()), rtol=1e-12)
    assert_close(found.test, other.predict(K_test.numpy()), rtol=1e-12)


def test_ridge_is_the_minimum_it_claims_to_be():
    """Of L + (lam/2) ‖dw‖^2 from outputs that are not zero: the gradient vanishes."""
    features, y, start, lam = draw(7, 14), draw(7), draw(7, seed=1), 0.3
    F = KernelRegression(features @ features.T, y, start=start).ridge(lam).train
    dw = torch.linalg.pinv(features) @ (F - start)
    assert_close(features.T @ (F - y) / 7 + lam * dw, torch.zeros(14).double(), rtol=1e-12, scale=1.0)


def test_ridge_without_a_penalty_is_the_end_of_the_flow():
    (K, K_test), y = kernels(rank=3), draw(7)
    solved = KernelRegression(K, y, K_test)
    found = solved.ridge(torch.tensor([0.0, 1e300]))
    assert_close(found.train[0], solved.train_outputs(INF))
    assert_close(found.test[0], solved.test_outputs(INF))
    assert_close(found.train[1], torch.zeros(7).double(), rtol=1e-200, scale=1.0)
    assert KernelRegression(K, y).ridge(1.0).test is None


# ---------------------------------------------------------------------- shapes


def test_times_come_first_then_members():
    (K, K_test), Y = kernels(members=(2, 3)), draw(7, 2)
    solved = KernelRegression(K, Y, K_test, start=draw(2, 3, 7, 2), test_start=draw(2, 3, 4, 2))
    times = torch.tensor([[0.0, 1.0], [INF, 0.2], [5.0, 1e9]])
    assert solved.train_outputs(1.0).shape == (2, 3, 7, 2)
    assert solved.train_outputs(times).shape == (3, 2, 2, 3, 7, 2)
    assert solved.test_outputs(times).shape == (3, 2, 2, 3, 4, 2)
    assert solved.coefficients(times).shape == (3, 2, 2, 3, 7, 2)
    assert solved.loss(times).shape == (3, 2, 2, 3)
    assert solved.ridge(torch.ones(5)).test.shape == (5, 2, 3, 4, 2)
    for where in ((0, 1), (1, 0), (2, 1)):
        t = float(times[where])
        assert_close(solved.train_outputs(times, 0.5)[where], solved.train_outputs(t, 0.5))
        assert_close(solved.test_outputs(times, 0.5)[where], solved.test_outputs(t, 0.5))
        assert_close(solved.loss(times)[where], solved.loss(t))


def test_members_and_outputs_are_solved_apart():
    (K, K_test), Y, start = kernels(members=(2,)), draw(7, 3), draw(2, 7, 3, seed=1)
    solved = KernelRegression(K, Y, K_test, start=start)
    for e in range(2):
        for c in range(3):
            alone = KernelRegression(K[e], Y[:, c], K_test[e], start=start[e, :, c])
            assert_close(solved.train_outputs(0.7)[e, :, c], alone.train_outputs(0.7), rtol=1e-13)
            assert_close(solved.test_outputs(0.7, 2.0)[e, :, c], alone.test_outputs(0.7, 2.0), rtol=1e-13)
    assert_close(solved.loss(0.7), (solved.train_outputs(0.7) - Y).square().sum(-1).mean(-1) / 2, rtol=1e-12)


def test_members_may_share_a_kernel_and_differ_in_their_starts():
    """As many times as members, which must not be taken for each other."""
    (K, K_test), y, start, times = kernels(), draw(7), draw(2, 7, seed=1), number(0.3, 1.0)
    together = KernelRegression(K, y, K_test, start=start)
    for e in range(2):
        alone = KernelRegression(K, y, K_test, start=start[e])
        for name in ("train_outputs", "test_outputs", "loss"):
            assert_close(getattr(together, name)(times)[:, e], getattr(alone, name)(times), rtol=1e-13)
        assert_close(together.ridge(times).test[:, e], alone.ridge(times).test, rtol=1e-13)


@TAUS
def test_kernel_between_outputs(tau):
    """Theta_ij^kl as one matrix; and a product of a kernel with the identity is the shared kernel."""
    n, m, c, t = 5, 3, 2, 0.8
    features = draw(n + m, c, 30)
    full = torch.einsum("ikp,jlp->ijkl", features, features)
    K, K_test = joint_kernel(full[:n, :n]), joint_kernel(full[n:, :n])
    assert_close(K, features[:n].reshape(-1, 30) @ features[:n].reshape(-1, 30).T)
    Y, start, test_start = draw(n, c), draw(n, c, seed=1), draw(m, c, seed=2)
    solved = KernelRegression(K, Y, K_test, start=start, test_start=test_start)
    flat = (x.numpy() for x in (K * 2, K_test * 2, Y.flatten(), start.flatten(), test_start.flatten()))
    train, test = by_matrix_exponential(*flat, t, tau)  # 1/n is for samples, not pairs: twice 1/(n c)
    assert_close(solved.train_outputs(t, tau), train.reshape(n, c), rtol=1e-13)
    assert_close(solved.test_outputs(t, tau), test.reshape(m, c), rtol=1e-13)


@TAUS
def test_outputs_that_do_not_interact_share_a_kernel(tau):
    (K, K_test), Y, t = kernels(5, 3), draw(5, 2), 0.8
    joint, joint_test = (joint_kernel(k[..., None, None] * torch.eye(2).double()) for k in (K, K_test))
    one, other = KernelRegression(joint, Y, joint_test), KernelRegression(K, Y, K_test)
    for name in ("train_outputs", "test_outputs", "loss"):
        assert_close(getattr(one, name)(t, tau), getattr(other, name)(t, tau), rtol=1e-13)


def test_coefficients_serve_test_kernels_in_tiles():
    (K, K_test), y = kernels(members=(2,)), draw(7)
    solved = KernelRegression(K, y, K_test)
    by_tiles = torch.cat(
        [tile @ solved.coefficients(0.7, 0.3).unsqueeze(-1) for tile in K_test.split(3, dim=-2)], dim=-2
    )
    assert_close(by_tiles.squeeze(-1), solved.test_outputs(0.7, 0.3), rtol=1e-13)


def test_a_failed_member_leaves_the_others_alone():
    (K, K_test), y = kernels(members=(2,)), draw(7)
    whole, broken = KernelRegression(K, y, K_test), K.clone()
    broken[1, 0, 0] = float("nan")
    found = KernelRegression(broken, y, K_test)
    for t in (0.0, 1.0, INF):
        for name in ("train_outputs", "test_outputs", "loss"):
            for tau in (0.0, 1.0):
                F = getattr(found, name)(t, tau)
                assert_close(F[0], getattr(whole, name)(t, tau)[0])
                assert F[1].isnan().all()


def test_float32_kernels_are_solved_in_float64():
    (K, _), y = kernels(), draw(7)
    found = KernelRegression(K.float(), y.float()).train_outputs(1.0)
    assert_close(found, KernelRegression(K.float().double(), y.float().double()).train_outputs(1.0))


K3, Y3 = torch.eye(3), torch.zeros(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KernelRegression(torch.zeros(3, 4), Y3), r"\(3, 4\)"),
        (lambda: KernelRegression(K3, torch.zeros(4)), "3 rows came with targets .* expected 4 rows"),
        (lambda: KernelRegression(K3, torch.zeros(3, dtype=torch.long)), "int64"),
        (lambda: KernelRegression(K3, Y3, torch.zeros(3, 2)), r"expected \(..., m, 3\)"),
        (lambda: KernelRegression(torch.eye(6), torch.zeros(3, 2), torch.zeros(3, 6)), r"\(3, 6\), expected"),
        (lambda: KernelRegression(K3, Y3, start=torch.zeros(2)), "at the start have shape"),
        (lambda: KernelRegression(K3, Y3, test_start=torch.zeros(2)), "without a test kernel"),
        (lambda: KernelRegression(K3, Y3, K3, test_start=torch.zeros(2)), r"\(2,\), expected \(3,\)"),
        (lambda: KernelRegression(-K3, Y3), "smallest eigenvalue"),
        (lambda: KernelRegression(torch.diag(torch.tensor([1.0, 1.0, -1e-3])), Y3), "is -0.001 times the largest"),
        (lambda: KernelRegression(K3, Y3).test_outputs(1.0), "give test_kernel"),
        (lambda: KernelRegression(K3, Y3).train_outputs(-1.0), "t is -1.0"),
        (lambda: KernelRegression(K3, Y3).loss(float("nan")), "t is nan"),
        (lambda: KernelRegression(K3, Y3).loss(1.0, -1.0), "tau is -1.0"),
        (lambda: KernelRegression(K3, Y3).train_outputs(1.0, INF), "tau is inf"),
        (lambda: KernelRegression(K3, Y3).ridge(-1.0), "lam is -1.0"),
        (lambda: joint_kernel(torch.zeros(3, 3)), r"\(3, 3\)"),
        (lambda: joint_kernel(torch.zeros(3, 3, 2, 1)), r"\(3, 3, 2, 1\)"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
