"""Work against precision of the integrators: evaluations and time against the error of F and of the kernel drift.

    python benchmarks/integrators.py --out FILE.json [--data digits mnist cifar] [--samples 250 1000]
        [--images FOLDER] [--cifar FILE.npz] [--alphas 100 1 0.01] [--integrators euler auto]
        [--truth implicit] [--quick] [--resume]
    python benchmarks/work_precision_figure.py FILE.json FIGURE.png

FC with L = 3 and h = 100, parity of the class, softhinge(20), float64, on one thread, to nine tenths of the time at
which all margins are met. ``network`` is the flow of the network at alpha = 100 (lazy), 1 (crossover) and 0.01 (feature
learning); ``kernel`` the flow on the frozen kernel, beside scipy's RK45, BDF and LSODA (with Jacobian) on the same
equation in the space of outputs, whose evaluation is one product with the kernel.

The truth is the explicit pair at a tolerance of 1e-8, or with ``--truth implicit`` the implicit formulas at 1e-6, for
flows so stiff that the explicit pair takes an hour: on digits at n = 1000 these differ by 1e-6 to 3e-6. Errors: of F,
an rms over the test samples (``error``) and over the training samples (``error_train``); of the drift
‖Theta - Theta_0‖/‖Theta_0‖ of the kernel on 100 test samples, relative. On the kernel flow the truth is compared with
LSODA at 1e-10 (row ``check``), and at 20 samples the flow of a small network with scipy's DOP853 in the space of
weights (``python benchmarks/integrators.py --check``).

One evaluation is one forward and one backward pass (the explicit pair counts its seventh, a forward pass, as one).
Counts and errors do not depend on the machine. ``cpu`` is the processor time of the one thread, which other work on the
machine changes little; ``seconds`` the wall time, ``load`` the machine's load average when the run ended.

Each finished run is written at once, and a further call with ``--resume`` goes on with those that are missing. The
outputs of the truths are kept beside the JSON, in ``FILE.truths.npz``.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from timing import Rows, machine, output_options
from torch import Tensor, nn

from lazy_lightning.data import CIFAR10, MNIST, Digits, FlowData
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import MarginsMet, MomentumFlow, TimeReached
from lazy_lightning.flow.controllers import reference
from lazy_lightning.modules.kernel_objective import KernelObjective
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import ObjectiveClosure, empirical_ntk
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import build_loss

WIDTH, DEPTH, TEST, DRIFT = 100, 3, 500, 100
SETTINGS: dict[str, tuple[float | str, ...]] = {
    "euler": ("gradient_change", "reference", "reference 1e-5"),
    "explicit": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "implicit": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "auto": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
}
SCIPY = {"RK45": (1e-3, 1e-5, 1e-7), "BDF": (1e-3, 1e-5, 1e-7), "LSODA": (1e-3, 1e-5, 1e-7)}
ALPHAS = (100.0, 1.0, 0.01)
TRUTH: dict[str, float] = {"explicit": 1e-8, "implicit": 1e-6}
"""The tolerance of each integrator that may give the truth."""
Row = dict[str, Any]


class Case(NamedTuple):
    """One flow, which all integrators follow."""

    flow: str
    data: str
    n: int
    alpha: float

    def row(self, integrator: str, setting: float | str) -> Row:
        """What identifies a run."""
        return {**self._asdict(), "integrator": integrator, "setting": setting}

    @property
    def name(self) -> str:
        """In the file of truths."""
        return f"{self.flow}/{self.data}/{self.n}/{self.alpha:g}"


KEYS = (*Case._fields, "integrator", "setting")


class Files(NamedTuple):
    """Where images lie."""

    images: Path | None
    cifar: Path | None

    def datamodule(self, name: str, samples: int) -> FlowData:
        """One of the three sets.

        Raises:
            SystemExit: its files are not given.
        """
        sizes: dict[str, Any] = {"n_train": samples, "n_test": TEST, "labels": "parity"}
        if name == "digits":
            return Digits(**sizes)
        if name == "mnist" and self.images is not None:
            return MNIST(files=str(self.images), **sizes)
        if name == "cifar" and self.cifar is not None:
            return CIFAR10(files=str(self.cifar), **sizes)
        raise SystemExit(f"{name} needs its files: give {'--images FOLDER' if name == 'mnist' else '--cifar FILE'}")

    def held(self) -> list[str]:
        """The sets whose files are given."""
        return ["digits", *(["mnist"] if self.images else []), *(["cifar"] if self.cifar else [])]


class Problem:
    """One network on some samples, with the outputs on test samples."""

    def __init__(self, data: FlowData, alpha: float, width: int | None = None) -> None:
        data.setup()
        self.x, self.y = data.train.x.double(), data.train.y.double()
        self.x_test = data.test.x.double()
        factory = functools.partial(FC, width=width or WIDTH, depth=DEPTH)
        members = InitialMembers(factory, [0], data.input_shape, data.num_outputs)
        self.network, self.w0 = members.network, members.w0
        self.loss = build_loss("softhinge(20)")
        self.centering = Centering(torch.tensor([alpha], dtype=torch.float64))
        self._starts = {id(x): raw_outputs(self.network, self.w0, x, {}) for x in (self.x, self.x_test)}

    def network_objective(self) -> Objective:
        """The network's own."""
        return Objective(self.network, self.loss, self.centering, self.x, self.y, self._starts[id(self.x)], {})

    def outputs(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """F on the training and on the test samples."""
        train, test = (
            self.centering(raw_outputs(self.network, w, x, {}), self._starts[id(x)]).flatten()
            for x in (self.x, self.x_test)
        )
        return train, test

    def kernel(self, x: Tensor, other: Tensor | None = None, w: Tensor | None = None) -> Tensor:
        """Theta between samples at w, by default at w0."""
        return empirical_ntk(self.network, self.w0 if w is None else w, x, other, output="trace")[0]

    @functools.cached_property
    def _first_kernel(self) -> Tensor:
        return self.kernel(self.x_test[:DRIFT])

    def drift(self, w: Tensor) -> float:
        """‖Theta - Theta_0‖/‖Theta_0‖ on test samples."""
        change = self.kernel(self.x_test[:DRIFT], w=w) - self._first_kernel
        return float(change.norm() / self._first_kernel.norm())


class Flow(NamedTuple):
    """What is followed, and what is read at its end."""

    w0: Tensor
    objective: Any
    outputs: Callable[[Tensor], tuple[Tensor, Tensor]]
    drift: Callable[[Tensor], float] | None


class Run(NamedTuple):
    """One run to an event."""

    evaluations: int
    seconds: float
    cpu: float
    t: float
    train: NDArray[Any]
    test: NDArray[Any]
    drift: float

    def row(self) -> Row:
        """Its cost."""
        numbers = {"evaluations": self.evaluations, "seconds": round(self.seconds, 4), "cpu": round(self.cpu, 4)}
        load = round(os.getloadavg()[0], 2)
        return {**numbers, "t": self.t, "drift": self.drift, "threads": torch.get_num_threads(), "load": load}


def network_flow(problem: Problem) -> Flow:
    """The flow of the network."""
    return Flow(problem.w0, problem.network_objective(), problem.outputs, problem.drift)


def kernel_flow(problem: Problem, kernel: Tensor, across: Tensor) -> Flow:
    """The flow on the frozen kernel."""
    features = KernelFeatures.of(kernel)
    v0 = torch.zeros(1, len(problem.x), dtype=torch.float64)
    objective = KernelObjective(features.train[None], None, problem.centering, problem.loss, problem.y, 1)
    alpha, held_out = float(problem.centering.alpha), features.of_others(across)

    def outputs(v: Tensor) -> tuple[Tensor, Tensor]:
        return alpha * (features.train @ v[0]), alpha * (held_out @ v[0])

    return Flow(v0, objective, outputs, None)


def follow(flow: Flow, integrator: str, setting: float | str, end: Any) -> Run:
    """One run to an event."""
    w = nn.Parameter(flow.w0.clone())
    how: dict[str, Any] = {"tol": setting}
    if isinstance(setting, str):
        name, _, bound = setting.partition(" ")
        how = {"controller": reference(float(bound)) if bound else name}
    optimizer = MomentumFlow([w], members=1, events=[end], steps=50, origin=flow.w0, integrator=integrator, **how)
    closure = ObjectiveClosure(w, flow.objective, optimizer)
    start, cpu = time.perf_counter(), time.process_time()
    while not optimizer.started or any(optimizer.clock().running):
        optimizer.step(closure)
    seconds, spent = time.perf_counter() - start, time.process_time() - cpu
    state, final = optimizer.flow_state, w.detach()
    train, test = (part.numpy() for part in flow.outputs(final))
    drift = flow.drift(final) if flow.drift else float("nan")
    return Run(int(state.tried), seconds, spent, float(state.t), train, test, drift)


def errors(run: Run, truth: Run) -> Row:
    """Of F on test and training samples, and of the drift."""
    found = {"error": rms(run.test - truth.test), "error_train": rms(run.train - truth.train)}
    drift = abs(run.drift / truth.drift - 1) if truth.drift > 0 else None
    return {**found, "error_drift": drift}


def rms(x: NDArray[Any]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


class Truths:
    """The runs at the smallest tolerance, kept in a file if one is given."""

    def __init__(self, path: Path | None, integrator: str) -> None:
        self.path, self.integrator = path, integrator
        self._held: dict[str, NDArray[Any]] = dict(np.load(path)) if path and path.is_file() else {}

    def of(self, case: Case, flow: Flow) -> Run:
        """The truth of a case, computed where it is not held yet by this integrator."""
        name = f"{case.name}:{self.integrator}"
        if f"{name}:numbers" not in self._held:
            end = TimeReached(0.9 * follow(flow, "auto", 1e-4, MarginsMet()).t)
            run = follow(flow, self.integrator, TRUTH[self.integrator], end)
            numbers = np.array([run.evaluations, run.seconds, run.cpu, run.t, run.drift])
            own = {"numbers": numbers, "train": run.train, "test": run.test}
            self._held |= {f"{name}:{part}": value for part, value in own.items()}
            if self.path:
                np.savez(self.path, **self._held)  # type: ignore[arg-type]
        numbers, train, test = (self._held[f"{name}:{part}"] for part in ("numbers", "train", "test"))
        evaluations, seconds, cpu, t, drift = numbers.tolist()
        return Run(int(evaluations), seconds, cpu, t, train, test, drift)

    @property
    def setting(self) -> tuple[str, float]:
        """What identifies its row: its tolerance tells the integrator."""
        return "truth", TRUTH[self.integrator]


class ScipyFlow:
    """dF/dt = -Theta l'(F)/n on the training and test samples together, by scipy."""

    def __init__(self, problem: Problem, kernel: Tensor, across: Tensor, t: float) -> None:
        self.samples, self.t = len(problem.y), t
        self.whole = np.concatenate([kernel.numpy(), across.numpy()]) / self.samples
        self.loss, self.y = problem.loss, problem.y

    def _rate(self, _: float, F: NDArray[Any]) -> NDArray[Any]:
        slope = self.loss.slopes(torch.from_numpy(F[: self.samples])[None], self.y)[0]
        return np.asarray(-self.whole @ slope.numpy())

    def _jacobian(self, _: float, F: NDArray[Any]) -> NDArray[Any]:
        root = self.loss.curvature_root(torch.from_numpy(F[: self.samples])[None], self.y)[0].numpy()
        others = len(self.whole) - self.samples
        return np.concatenate([-self.whole * root**2, np.zeros((len(self.whole), others))], axis=1)

    def run(self, method: str, rtol: float) -> Run:
        """To the end of the flow."""
        options = {} if method == "RK45" else {"jac": self._jacobian}
        start, cpu = time.perf_counter(), time.process_time()
        first = np.zeros(len(self.whole))
        found = solve_ivp(self._rate, (0, self.t), first, method=method, rtol=rtol, atol=rtol, **options)
        seconds, spent = time.perf_counter() - start, time.process_time() - cpu
        F = found.y[:, -1]
        return Run(int(found.nfev), seconds, spent, self.t, F[: self.samples], F[self.samples :], float("nan"))


def measure_network(rows: Rows, truths: Truths, case: Case, data: FlowData, settings: Settings) -> None:
    """All integrators on the flow of the network."""
    if rows.all_there(case.row(name, setting) for name, setting in [truths.setting, *settings]):
        return
    flow = network_flow(Problem(data, case.alpha))
    measure_ours(rows, truths, case, flow, settings)


Settings = Sequence[tuple[str, float | str]]


def measure_ours(rows: Rows, truths: Truths, case: Case, flow: Flow, settings: Settings) -> None:
    """All our integrators, where they are missing."""
    truth = truths.of(case, flow)
    rows.add(case.row(*truths.setting), lambda: {"error": 0.0, **truth.row()})
    end = TimeReached(truth.t)

    def measured(name: str, setting: float | str) -> Row:
        run = follow(flow, name, setting, end)
        return {**errors(run, truth), **run.row()}

    for name, setting in settings:
        rows.add(case.row(name, setting), functools.partial(measured, name, setting))


def measure_kernel(rows: Rows, truths: Truths, case: Case, data: FlowData, settings: Settings) -> None:
    """Our integrators and scipy's on the frozen kernel."""
    others = [(f"scipy {method}", rtol) for method, tolerances in SCIPY.items() for rtol in tolerances]
    check = ("check", 1e-10)
    if rows.all_there(case.row(name, setting) for name, setting in [truths.setting, *settings, *others, check]):
        return
    problem = Problem(data, case.alpha)
    kernel, across = problem.kernel(problem.x), problem.kernel(problem.x_test, problem.x)
    flow = kernel_flow(problem, kernel, across)
    truth = truths.of(case, flow)
    measure_ours(rows, truths, case, flow, settings)
    theirs = ScipyFlow(problem, kernel, across, truth.t)

    def measured(method: str, rtol: float) -> Row:
        run = theirs.run(method, rtol)
        return {**errors(run, truth), **run.row()}

    for name, rtol in others:
        rows.add(case.row(name, rtol), functools.partial(measured, name.removeprefix("scipy "), float(rtol)))
    rows.add(case.row(*check), functools.partial(measured, "LSODA", 1e-10))


def check_against_scipy(samples: int = 20, width: int = 8, alpha: float = 1.0) -> Row:
    """The truth's integrator against scipy's DOP853 in the space of weights, for a small network."""
    problem = Problem(Digits(n_train=samples, n_test=50, labels="parity"), alpha, width)
    flow = network_flow(problem)
    end = 0.9 * follow(flow, "auto", 1e-4, MarginsMet()).t
    truth = follow(flow, "explicit", TRUTH["explicit"], TimeReached(end))

    def rate(_: float, w: NDArray[Any]) -> NDArray[Any]:
        weights = nn.Parameter(torch.from_numpy(w)[None].clone())
        flow.objective.backward(weights)
        assert weights.grad is not None
        return -weights.grad[0].numpy()

    found = solve_ivp(rate, (0, end), problem.w0[0].numpy(), method="DOP853", rtol=1e-10, atol=1e-12)
    train, test = (part.numpy() for part in problem.outputs(torch.from_numpy(found.y[:, -1])[None]))
    drift = problem.drift(torch.from_numpy(found.y[:, -1])[None])
    return {
        "n": samples,
        "h": width,
        "alpha": alpha,
        "error": rms(test - truth.test),
        "error_train": rms(train - truth.train),
        "error_drift": abs(drift / truth.drift - 1),
        "evaluations": truth.evaluations,
        "scipy_evaluations": int(found.nfev),
    }


def cases(options: argparse.Namespace, files: Files) -> Iterator[tuple[Case, FlowData]]:
    """Small ones first."""
    for n in options.samples:
        for data in options.data or files.held():
            kernels = [] if options.alphas else [("kernel", 1.0)]
            for flow, alpha in [*(("network", alpha) for alpha in options.alphas or ALPHAS), *kernels]:
                yield Case(flow, data, n, alpha), files.datamodule(data, n)


def main() -> None:
    """Measures what is missing, prints a row at a time, and writes each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("digits", "mnist", "cifar"), help="all whose files are given")
    parser.add_argument("--images", type=Path, help="a folder with idx files of MNIST")
    parser.add_argument("--cifar", type=Path, help="an .npz file with images x and classes y of CIFAR-10")
    parser.add_argument("--samples", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--alphas", type=float, nargs="+", help="these alone, without the flow on the frozen kernel")
    parser.add_argument("--integrators", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="these alone")
    parser.add_argument("--truth", choices=list(TRUTH), default="explicit", help="the integrator that gives the truth")
    parser.add_argument("--quick", action="store_true", help="tolerances of 1e-3 and 1e-4 alone, and two of Euler")
    parser.add_argument("--check", action="store_true", help="only compare the truth with scipy at 20 samples")
    output_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flush_denormals()
    if options.check:
        print(check_against_scipy())
        return
    every = [(name, setting) for name in options.integrators for setting in SETTINGS[name]]
    settings = [pair for pair in every if not options.quick or pair[1] in ("gradient_change", "reference", 1e-3, 1e-4)]
    head = {**machine(torch.device("cpu")), "test": TEST, "h": WIDTH, "L": DEPTH}
    rows = Rows(options, head, KEYS)
    truths = Truths(options.out.with_suffix(".truths.npz") if options.out else None, options.truth)
    for case, data in cases(options, Files(options.images, options.cifar)):
        measure = measure_kernel if case.flow == "kernel" else measure_network
        measure(rows, truths, case, data, settings)


if __name__ == "__main__":
    main()
