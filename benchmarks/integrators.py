"""Work against precision of the integrators: evaluations and wall time against the error of F on test samples.

    python benchmarks/integrators.py [--samples 200 1000] [--out FILE.json] [--figure FILE.png]

scikit-learn's digits, parity of the class, FC with L = 3 and h = 100, softhinge(20), float64, to nine tenths of the
time at which all margins are met. The truth is the explicit pair at 1e-8. One evaluation is one forward and one
backward pass (the explicit pair counts its seventh, a forward pass alone, as one). ``network`` is the flow of the
network at alpha = 100 (lazy), 1 and 0.01 (feature learning); ``kernel`` the flow on the frozen kernel, beside scipy's
RK45, BDF and LSODA (with Jacobian) on the same equation in the space of outputs, whose evaluation is one product with
the kernel. Counts do not depend on the machine; seconds do.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from plain_flow import plain_flow
from scipy.integrate import solve_ivp
from timing import machine, save
from torch import Tensor, nn

from lazy_lightning.data import Digits
from lazy_lightning.flow import MarginsMet, MomentumFlow, TimeReached
from lazy_lightning.modules.kernel_objective import KernelObjective
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import ObjectiveClosure, empirical_ntk
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import build_loss

WIDTH, DEPTH, TEST = 100, 3, 500
TOLERANCES = {
    "euler": ("gradient_change", "reference"),
    "explicit": (1e-2, 1e-3, 1e-4),
    "implicit": (1e-2, 1e-3, 1e-4, 1e-5),
    "auto": (1e-2, 1e-3, 1e-4),
}
ALPHAS = (100.0, 1.0, 0.01)


class Problem:
    """One network on some samples, with the outputs on test samples."""

    def __init__(self, samples: int, alpha: float) -> None:
        data = Digits(n_train=samples, n_test=TEST, labels="parity")
        data.setup()
        self.x, self.y = data.train.x.double(), data.train.y.double()
        self.x_test = data.test.x.double()
        factory = functools.partial(FC, width=WIDTH, depth=DEPTH)
        members = InitialMembers(factory, [0], data.input_shape, data.num_outputs)
        self.network, self.w0 = members.network, members.w0
        self.loss = build_loss("softhinge(20)")
        self.centering = Centering(torch.tensor([alpha], dtype=torch.float64))
        self._test_start = raw_outputs(self.network, self.w0, self.x_test, {})

    def network_objective(self) -> Objective:
        """The network's own."""
        f0 = raw_outputs(self.network, self.w0, self.x, {})
        return Objective(self.network, self.loss, self.centering, self.x, self.y, f0, {})

    def test(self, w: Tensor) -> Tensor:
        """F on the test samples."""
        return self.centering(raw_outputs(self.network, w, self.x_test, {}), self._test_start)

    def kernel(self, x: Tensor | None) -> Tensor:
        """Theta between samples x, or the training samples, and the training samples."""
        pair = (self.x, None) if x is None else (x, self.x)
        return empirical_ntk(self.network, self.w0, *pair, output="trace")[0]


def follow(
    w0: Tensor, objective: Any, test: Callable[[Tensor], Tensor], integrator: str, setting: float | str, end: Any
) -> dict[str, Any]:
    """One run to an event: evaluations, seconds, F on test samples, and the time at its end."""
    w = nn.Parameter(w0.clone())
    how = {"controller": setting} if isinstance(setting, str) else {"tol": setting}
    flow = MomentumFlow([w], members=1, events=[end], steps=50, origin=w0, integrator=integrator, **how)
    closure, start = ObjectiveClosure(w, objective, flow), time.perf_counter()
    while not flow.started or any(flow.clock().running):
        flow.step(closure)
    seconds = time.perf_counter() - start
    evaluations = int(flow.flow_state.tried)
    return {"evaluations": evaluations, "seconds": seconds, "F": test(w.detach()), "t": float(flow.flow_state.t)}


def compare(problem: Problem, w0: Tensor, objective: Any, test: Callable[[Tensor], Tensor]) -> Iterator[dict[str, Any]]:
    """All integrators at all tolerances against the truth."""
    margins = follow(w0, objective, test, "auto", 1e-4, MarginsMet())
    end = TimeReached(0.9 * margins["t"])
    truth = follow(w0, objective, test, "explicit", 1e-8, end)
    yield {"integrator": "truth", "setting": 1e-8, "error": 0.0, **_numbers(truth)}
    for integrator, settings in TOLERANCES.items():
        for setting in settings:
            run = follow(w0, objective, test, integrator, setting, end)
            error = float((run["F"] - truth["F"]).square().mean().sqrt())
            yield {"integrator": integrator, "setting": setting, "error": error, **_numbers(run)}


def _numbers(run: dict[str, Any]) -> dict[str, Any]:
    return {"evaluations": run["evaluations"], "seconds": round(run["seconds"], 3), "t": run["t"]}


def on_the_kernel(problem: Problem) -> Iterator[dict[str, Any]]:
    """The flow on the frozen kernel by our integrators and by scipy's."""
    kernel, across = problem.kernel(None), problem.kernel(problem.x_test)
    features = KernelFeatures.of(kernel)
    v0 = torch.zeros(1, len(problem.x), dtype=torch.float64)
    objective = KernelObjective(features.train[None], None, problem.centering, problem.loss, problem.y, 1)
    alpha, held_out = float(problem.centering.alpha), features.of_others(across)

    def test(v: Tensor) -> Tensor:
        return alpha * (held_out @ v[0])

    rows = list(compare(problem, v0, objective, test))
    yield from rows
    yield from scipy_runs(problem, kernel, across, rows[0]["t"])


def scipy_runs(problem: Problem, kernel: Tensor, across: Tensor, t: float) -> Iterator[dict[str, Any]]:
    """RK45, BDF and LSODA on dF/dt = -Theta l'(F)/n, with F on test samples integrated along."""
    K, samples = kernel.numpy() / len(problem.y), len(problem.y)
    whole = np.concatenate([K, across.numpy() / samples])
    loss, y = problem.loss, problem.y

    def slope(F: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(loss.slopes(torch.from_numpy(F[:samples])[None], y)[0])

    def rate(_: float, F: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(-whole @ slope(F))

    def jacobian(_: float, F: NDArray[Any]) -> NDArray[Any]:
        root = loss.curvature_root(torch.from_numpy(F[:samples])[None], y)[0].numpy()
        return np.concatenate([-whole * root**2, np.zeros((len(whole), len(whole) - samples))], axis=1)

    def run(method: str, rtol: float) -> dict[str, Any]:
        options = {} if method == "RK45" else {"jac": jacobian}
        start = time.perf_counter()
        found = solve_ivp(rate, (0, t), np.zeros(len(whole)), method=method, rtol=rtol, atol=rtol, **options)
        return {"F": found.y[samples:, -1], "evaluations": int(found.nfev), "seconds": time.perf_counter() - start}

    truth = run("LSODA", 1e-10)["F"]
    for method in ("RK45", "BDF", "LSODA"):
        for rtol in (1e-3, 1e-5):
            found = run(method, rtol)
            error = float(np.sqrt(np.mean((found["F"] - truth) ** 2)))
            numbers = {"evaluations": found["evaluations"], "seconds": round(found["seconds"], 3), "t": t}
            yield {"integrator": f"scipy {method}", "setting": rtol, "error": error, **numbers}


def plain_rule(problem: Problem, alpha: float, reference: dict[str, Any]) -> dict[str, Any]:
    """As many steps of the published rule as a plain program: the same numbers as ``reference``, in other time."""
    model = FC(WIDTH, DEPTH, input_shape=tuple(problem.x.shape[1:])).double()
    nn.utils.vector_to_parameters(problem.w0[0].clone(), model.parameters())
    start = time.perf_counter()
    plain_flow(model, problem.x, lambda F: nnf.softplus(1 - F * problem.y, 20, 40), alpha, reference["evaluations"])
    seconds = round(time.perf_counter() - start, 3)
    return {**reference, "integrator": "plain rule", "seconds": seconds}


def measured(samples: list[int]) -> Iterator[dict[str, Any]]:
    """All rows, printed as they come."""
    for n in samples:
        for alpha in ALPHAS:
            problem = Problem(n, alpha)
            rows = list(compare(problem, problem.w0, problem.network_objective(), problem.test))
            reference = next(row for row in rows if row["setting"] == "reference")
            for row in [*rows, plain_rule(problem, alpha, reference)]:
                yield {"flow": "network", "n": n, "alpha": alpha, **row}
        for row in on_the_kernel(Problem(n, 1.0)):
            yield {"flow": "kernel", "n": n, "alpha": 1.0, **row}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against evaluations and seconds, one column a flow, at the largest n."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    largest = max(row["n"] for row in rows)
    cases = list(dict.fromkeys((row["flow"], row["alpha"]) for row in rows))
    figure, axes = plt.subplots(2, len(cases), figsize=(3.1 * len(cases), 5.4), sharey=True, layout="constrained")
    for column, (flow, alpha) in enumerate(cases):
        chosen = [r for r in rows if (r["flow"], r["alpha"], r["n"]) == (flow, alpha, largest) and r["error"] > 0]
        for line, quantity in enumerate(("evaluations", "seconds")):
            for name in dict.fromkeys(r["integrator"] for r in chosen):
                own = [r for r in chosen if r["integrator"] == name]
                dashed = {"ls": ":", "marker": "x"} if name.startswith("scipy") else {"ls": "-", "marker": "o"}
                axes[line, column].loglog([r[quantity] for r in own], [r["error"] for r in own], label=name, **dashed)
            axes[line, column].set_xlabel(quantity)
        title = "frozen kernel" if flow == "kernel" else f"network, α = {alpha:g}"
        axes[0, column].set_title(f"{title}, n = {largest}", fontsize=10)
    for line in range(2):
        axes[line, 0].set_ylabel("rms error of F, test")
    for axis in axes.flat:
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    named = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints a row at a time, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for row in measured(given.samples):
        rows.append(row)
        print(
            f"{row['flow']:8} n {row['n']:5} alpha {row['alpha']:6g} {row['integrator']:12} {row['setting']!s:16}"
            f"{row['evaluations']:7} evaluations {row['seconds']:8.2f} s  error {row['error']:.1e}",
            flush=True,
        )
        save({"machine": machine(torch.device("cpu")), "rows": rows}, given.out)
    if given.figure:
        draw(rows, given.figure)


if __name__ == "__main__":
    main()
