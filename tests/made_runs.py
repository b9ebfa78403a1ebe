"""Run folders without any training, whose columns obey laws with known exponents: what figures and reports must find.

With s = sqrt(h) alpha, and for seed e a factor g_e whose geometric mean over seeds is 1, the same at all alphas:

============================ ======================================================================
``kernel_drift/...``         g s^-1.6 for s <= 1, g/s beyond: 1/2 at s = 2, so alpha* = 2 h^(-1/2)
``tangent_departure``        1 for s <= 1, 1/s beyond
``t1/half_loss``             8 g min(s, 1)
``t1/kernel_drift``          g s/3 where the drift exceeds 0.1 (s < 10), else not reached
``t_lazy/labels``            10
``displacement/total``       g/(s sqrt(h));  ``dw_mean/...`` g/(alpha sqrt(h)) at the ends, g/(alpha h) inside
``activation_drift/...``     g/s
``test/error``               8 % for s < 1, 10 % beyond, and 0.5 % (e's place in -1 to 1)
``linearized/test/error``    10 % and the same; ``frozen_activations/test/error`` 9 % and the same; on training data 0
``activation_stability/...`` s/(1 + s);  ``activation_stability/held_error`` (30 + 60/(1 + s)) %
F on the test set            y + noise of variance 9/h, independent over seeds, the same at all alphas
============================ ======================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

SCALES = tuple(10.0 ** (k / 2) for k in range(-6, 7))
"""sqrt(h) alpha from 1e-3 to 1e3; 1 is one of them, where the laws bend."""
WIDTHS = (30, 100, 300)
FEATURE_SLOPE, LAZY_SLOPE, STAR = -1.6, -1.0, 2.0
NOISE = 9.0
LAYERS = ("hidden.0", "hidden.1", "hidden.2", "head")
COMPANIONS = {"linearized": 0.1, "frozen_activations": 0.09}
"""Test errors of the models that are trained beside the network."""
_TIMES = np.geomspace(1e-3, 20.0, 25)
_SAMPLES = 40


def made_sweep(
    folder: Path,
    widths: Sequence[int | None] = WIDTHS,
    scales: Sequence[float] = SCALES,
    seeds: int = 4,
    *,
    without: Sequence[str] = (),
    failed: Sequence[int] = (),
    arrays: bool = True,
    **changed: float,
) -> Path:
    """A run a width in ``folder``.

    Args:
        folder: where the runs are put.
        widths: None is a network that has no width; its alphas are the scales.
        scales: sqrt(h) alpha.
        seeds: of each alpha.
        without: columns that were not observed, by the start of their names.
        failed: numbers of members that failed, in each run.
        arrays: whether outputs and kernels were kept.
        changed: columns that are one number everywhere; ``__`` stands for the slash in a name.
    """
    for i, h in enumerate(widths):
        _run(folder / f"version_{i}", h, [_alpha(h, s) for s in scales], seeds, without, failed, arrays, changed)
    return folder


def made_kernels(folder: Path, widths: Sequence[int] = WIDTHS, seeds: int = 4, error: float = 0.1) -> Path:
    """Runs of kernels at initialisation, one a width: their test error is that of lazy networks."""
    for h in widths:
        path = folder / f"kernel_{h}"
        model = _model(h, [1.0], seeds) | {"class_path": "lazy_lightning.modules.KernelModule"}
        model["init_args"] |= {"at": "init"}
        members = [_who(1.0, e) | {"t": 20.0, "test/error": error + 0.005 * _place(e, seeds)} for e in range(seeds)]
        _write(path, model, h, members)
    return folder


def seed_factor(seed: int, seeds: int) -> float:
    """g_e."""
    return float(np.exp(0.05 * _place(seed, seeds)))


def columns(h: float, alpha: float, seed: int, seeds: int) -> dict[str, float | None]:
    """What a member has measured at the end."""
    s, g = np.sqrt(h) * alpha, seed_factor(seed, seeds)
    drift = g * (s**FEATURE_SLOPE if s <= 1 else s**LAZY_SLOPE)
    inside = {layer: layer.startswith("hidden") and layer != "hidden.0" for layer in LAYERS}
    return {
        "t": float(_TIMES[-1]),
        "tried": 100.0,
        "train/loss": 1e-3,
        "train/error": 0.0,
        "test/loss": 0.2,
        "test/error": (0.1 if s >= 1 else 0.08) + 0.005 * _place(seed, seeds),
        "train/output_rms": 2.0 * g,
        "test/output_rms": 1.5 * g,
        "tangent_departure": min(1.0, 1 / s),
        "displacement/total": g / (s * np.sqrt(h)),
        **{f"displacement/{layer}": g / (s * np.sqrt(h)) for layer in LAYERS},
        **{f"dw_mean/{layer}": g / (alpha * (h if inside[layer] else np.sqrt(h))) for layer in LAYERS},
        **{f"dw_max/{layer}": 4 * g / (alpha * (h if inside[layer] else np.sqrt(h))) for layer in LAYERS},
        **{f"activation_drift/{layer}": g / s for layer in LAYERS},
        **{f"activation_velocity/{layer}": g for layer in LAYERS},
        **{f"kernel_drift/{layer}": drift for layer in ("total", *LAYERS)},
        "kernel_alignment": 1 / np.sqrt(1 + drift**2),
        "label_alignment": 0.3 + 0.1 * min(1.0, drift),
        "t1/half_loss": 8 * g * min(s, 1.0),
        "t1/kernel_drift": g * s / 3 if s < 9.99 else None,
        "t_lazy/labels": 10.0,
        "laziness_index": 1 / s,
        "path_distance/sup": 1 / s,
        "kernel_evolution/norm": 3.0 * (1 + drift),
        "kernel_evolution/label_alignment": 0.2 + 0.5 * drift / (1 + drift),
        "kernel_evolution/velocity": drift,
        "kernel_evolution/test_error": 0.1 - 0.02 * drift / (1 + drift) + 0.005 * _place(seed, seeds),
        "sharpness/largest": 2 * g,
        "sharpness/limit": 4 * g,
        "activation_stability/total": s / (1 + s),
        "activation_stability/held_error": 0.3 + 0.6 / (1 + s),
        **{f"{model}/train/error": 0.0 for model in COMPANIONS},
        **{f"{model}/test/error": error + 0.005 * _place(seed, seeds) for model, error in COMPANIONS.items()},
    }


def _alpha(h: float | None, scale: float) -> float:
    return float(f"{scale / np.sqrt(1.0 if h is None else h):.10g}")


def _place(seed: int, seeds: int) -> float:
    """From -1 to 1, 0 on average."""
    return 0.0 if seeds == 1 else 2 * seed / (seeds - 1) - 1


def _run(
    path: Path,
    h: int | None,
    alphas: Sequence[float],
    seeds: int,
    without: Sequence[str],
    failed: Sequence[int],
    arrays: bool,
    changed: dict[str, float],
) -> None:
    members = []
    for alpha in alphas:
        for seed in range(seeds):
            found = columns(1.0 if h is None else float(h), alpha, seed, seeds)
            found |= {name.replace("__", "/"): value for name, value in changed.items()}
            kept = {name: value for name, value in found.items() if not name.startswith(tuple(without))}
            members.append(_who(alpha, seed, failed=len(members) in failed) | kept)
    _write(path, _model(h, list(alphas), seeds), h, members)
    _write_curves(path, members)
    if arrays:
        _write_arrays(path, 1.0 if h is None else float(h), members)


def _model(h: int | None, alphas: list[float], seeds: int) -> dict[str, Any]:
    shape = {} if h is None else {"width": h}
    network = {"class_path": "lazy_lightning.nn.FC", "init_args": {**shape, "depth": 3}}
    arguments = {"network": network, "alpha": alphas, "seeds": seeds, "loss": "softhinge(20)"}
    return {"class_path": "lazy_lightning.modules.FlowModule", "init_args": arguments}


def _who(alpha: float, seed: int, failed: bool = False) -> dict[str, Any]:
    return {"alpha": alpha, "seed": seed, "stop": "non_finite" if failed else "margins_met", "failed": failed}


def _write(path: Path, model: dict[str, Any], h: int | None, members: list[dict[str, Any]]) -> None:
    path.mkdir(parents=True)
    data = {"class_path": "lazy_lightning.data.Digits", "init_args": {"labels": "parity", "n_test": _SAMPLES}}
    (path / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": data}))
    summary = {"schema": 1, "model": "made", "width": h, "weights": 1, "wall_seconds": 1.0, "members": members}
    (path / "summary.json").write_text(json.dumps(summary))


def _write_curves(path: Path, members: list[dict[str, Any]]) -> None:
    """The train loss halves at t1 and the error falls to its end there; F grows as t until then."""
    parts = []
    for number, member in enumerate(members):
        t1 = member.get("t1/half_loss") or 1.0
        t = np.concatenate([[0.0, 0.0], t1 * _TIMES, [t1 * _TIMES[-1]]])  # a start twice, and an end repeated
        end = {name: np.full(len(t), value) for name, value in member.items() if "/" in name and value is not None}
        shapes = {
            "train/loss": 0.5 ** np.minimum(t / t1, 10.0),
            "test/error": np.where(t > t1, end.get("test/error", np.nan), np.where(t > 0, 0.5, 1.0)),
            "test/output_rms": end.get("test/output_rms", np.nan) * np.minimum(t / t1, 1.0),
            "kernel_evolution/norm": 3.0 + (end.get("kernel_evolution/norm", np.nan) - 3.0) * np.minimum(t / t1, 1.0),
        }
        kept = {name: values for name, values in shapes.items() if name in end}
        who = {"member": number, "alpha": member["alpha"], "seed": member["seed"]}
        parts.append(pd.DataFrame({"observation": range(len(t)), **who, "wall": 0.0, "t": t, **end, **kept}))
    pd.concat(parts, ignore_index=True).to_parquet(path / "curves.parquet")


def _write_arrays(path: Path, h: float, members: list[dict[str, Any]]) -> None:
    y, index = np.where(np.arange(_SAMPLES) % 2 == 0, 1.0, -1.0), np.arange(_SAMPLES)
    F = np.stack([y + _noise(m["seed"]) * np.sqrt(NOISE / h) for m in members])
    who = {"alpha": np.array([m["alpha"] for m in members]), "seed": np.array([m["seed"] for m in members])}
    sets = {f"{name}/{what}": a for name in ("train", "test") for what, a in _set(F, y, index).items()}
    save_file({**sets, **who}, str(path / "outputs.safetensors"))
    first = [i for i, m in enumerate(members) if m["seed"] == 0]
    start = np.eye(_SAMPLES) + 0.5 * np.outer(y, y)
    end = np.stack([start * (1 + (members[i].get("kernel_drift/total") or 0.0)) for i in first])
    kernels = {"start": np.stack([start] * len(first)), "end": end, "labels": y, "index": index}
    kept = {"member": np.array(first), "alpha": who["alpha"][first], "seed": who["seed"][first]}
    save_file(kernels | kept, str(path / "kernels.safetensors"))


def _set(F: np.ndarray, y: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    return {"outputs": F, "labels": y, "index": index}


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(_SAMPLES)
