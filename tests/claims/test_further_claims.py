"""What the further claims measure, on runs and tables of known laws."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import made_sweep
from safetensors.numpy import load_file, save_file

from lazy_lightning import load_runs
from lazy_lightning.claims import CLAIMS, Evaluated, evaluate
from lazy_lightning.figures.image_spectra import PIXELS

BY_NAME = {claim.name: claim for claim in CLAIMS}


def evaluated(name: str, runs: pd.DataFrame) -> Evaluated:
    """One claim on the runs of its experiment."""
    (found,) = evaluate([BY_NAME[name]], {BY_NAME[name].experiment: runs})
    return found


def values(name: str, runs: pd.DataFrame) -> list[float]:
    """The numbers of one claim."""
    found = evaluated(name, runs)
    assert found.measured, found.reason
    return [one.value for one in found.measured]


def labels(name: str, runs: pd.DataFrame) -> list[str]:
    """What distinguishes the numbers of one claim."""
    return [one.label for one in evaluated(name, runs).measured]


def rewrite_curves(folder: Path, change: Callable[[pd.DataFrame], dict[str, object]]) -> None:
    """Replaces columns of all stored observations in a folder."""
    for path in folder.rglob("curves.parquet"):
        curves = pd.read_parquet(path)
        curves.assign(**change(curves)).to_parquet(path)


def students(folder: Path, losses: dict[float, float]) -> pd.DataFrame:
    """Students of 50 neurons with a population loss for each alpha; that of alpha = 100 was 0.01 once."""
    for alpha, loss in losses.items():
        made_sweep(folder / f"{alpha}", widths=[50], scales=[50**0.5 * alpha], arrays=False, population__loss=loss)

    def fallen(curves: pd.DataFrame) -> dict[str, object]:
        once = (curves["observation"] == 5) & (curves["alpha"] == 100.0)
        return {"population/loss": curves["population/loss"].where(~once, 0.01)}

    rewrite_curves(folder, fallen)
    return load_runs(folder)


def test_losses_of_scales_are_compared_in_decades(tmp_path: Path) -> None:
    runs = students(tmp_path, {0.003: 0.001, 10.0: 0.1, 100.0: 0.1 * 10**0.02})
    assert values("scale_of_initialisation", runs) == pytest.approx([2.02])
    assert values("scale_plateau", runs) == pytest.approx([0.02])
    assert values("best_moment_of_lazy_training", runs) == pytest.approx([1.0])


def test_losses_on_new_samples_are_compared_in_decades(tmp_path: Path) -> None:
    runs = students(tmp_path, {0.01: 0.001, 10.0: 0.1, 100.0: 0.05})
    assert values("population_sgd_scale", runs) == pytest.approx([np.log10(50)])
    assert values("population_sgd_plateau", runs) == pytest.approx([-np.log10(2)])


def spectrum(folder: Path, exponent: float, samples: int = 210) -> pd.DataFrame:
    """Three networks with the eigenvalues c i^exponent, where c differs between them."""
    (run,) = made_sweep(folder, widths=[30], scales=[1.0], seeds=3).iterdir()
    kernel = np.diag(np.arange(1.0, samples + 1) ** exponent)
    kernels = np.stack([c * kernel for c in (1.0, 2.0, 3.0)])
    who = {"member": np.arange(3), "alpha": np.ones(3), "seed": np.arange(3)}
    save_file(
        {"start": kernels, "end": kernels, "labels": np.ones(samples), "index": np.arange(samples), **who},
        str(run / "kernels.safetensors"),
    )
    return load_runs(folder)


def test_exponents_of_spectra_are_subtracted(tmp_path: Path) -> None:
    images = spectrum(tmp_path / "images", -1.0).assign(**{PIXELS: False})
    noise = spectrum(tmp_path / "noise", -0.8).assign(**{PIXELS: True})
    runs = pd.concat([images, noise], ignore_index=True)
    assert values("spectrum_on_images", runs) == pytest.approx([-0.2])
    ranks = np.arange(1.0, 211.0)
    shares = [1 / (ranks**exponent).sum() for exponent in (-1.0, -0.8)]
    assert values("constant_mode", runs) == pytest.approx(shares)
    assert labels("constant_mode", runs) == ["images", "noise"]
    assert "sweep data.random_pixels" in evaluated("constant_mode", images).reason
    assert "sweep data.random_pixels" in evaluated("constant_mode", images.drop(columns=PIXELS)).reason
    other = pd.concat([images[images["seed"] > 0], noise[noise["seed"] < 2]], ignore_index=True)
    assert "expected the same seeds" in evaluated("spectrum_on_images", other).reason


def evolution(folder: Path) -> pd.DataFrame:
    """The loss falls as 1/(1 + t), the alignment rises as the square of its fall to four times, the norm to tenfold."""
    made_sweep(folder, widths=[100], scales=[0.1, 1.0], arrays=False)

    def laws(curves: pd.DataFrame) -> dict[str, object]:
        fall = 1 + curves["t"]
        return {
            "train/loss": 1 / fall,
            "kernel_evolution/label_alignment": 0.2 * fall.clip(upper=2.0) ** 2,
            "kernel_evolution/norm": 3.0 * fall.clip(upper=10.0) ** 1.5,
            "kernel_evolution/test_error": 0.05 - 0.03 * (curves["t"] > 0),
            "kernel_evolution/test_loss": 0.07 * 0.5 ** (curves["observation"] > 0),
        }

    rewrite_curves(folder, laws)
    return load_runs(folder)


def test_shares_of_the_rise_of_the_kernel_until_the_loss_has_fallen(tmp_path: Path) -> None:
    runs = evolution(tmp_path)
    aligned = (0.9**-2 - 1) / 3
    assert values("silent_alignment", runs) == pytest.approx([aligned])
    assert values("alignment_before_growth", runs) == pytest.approx([aligned + np.log10(0.9)])
    assert values("learnt_kernel_error", runs) == pytest.approx([-3.0, -3.0])
    assert values("learnt_kernel_loss", runs) == pytest.approx([-0.035, -0.035])
    assert labels("learnt_kernel_loss", runs) == ["alpha = 0.01", "alpha = 0.1"]


DELAYS = {0.02: 1.5, 1.0: 3.0, 2.0: 6.0}


def grokking(folder: Path, delays: dict[float, float]) -> pd.DataFrame:
    """The train loss falls as 1/t, and the test loss as much at a time that is later by a factor for each alpha."""
    made_sweep(folder, widths=[50], scales=[50**0.5 * alpha for alpha in delays], arrays=False)

    def laws(curves: pd.DataFrame) -> dict[str, object]:
        alphas = np.array(list(delays))
        late = curves["alpha"].map(lambda alpha: delays[float(alphas[np.abs(alphas - alpha).argmin()])])
        start = curves["t"] == 0
        return {
            "train/loss": (1 / curves["t"]).where(~start, 1.0),
            "test/loss": (late / curves["t"]).where(~start, 1.0),
        }

    rewrite_curves(folder, laws)
    return load_runs(folder)


def test_delays_of_the_test_loss_are_interpolated(tmp_path: Path) -> None:
    runs = grokking(tmp_path, DELAYS)
    assert values("rich_networks_do_not_grok", runs) == pytest.approx([1.5])
    assert values("lazy_networks_grok", runs) == pytest.approx(np.log10([2.0, 4.0]))


def test_losses_that_have_not_fallen_give_a_bound_or_a_reason(tmp_path: Path) -> None:
    """A lazy network counts with the end of its training, 20 t1 = 160 g for factors g of the seeds with the mean 1."""
    lazy = grokking(tmp_path / "lazy", {**DELAYS, 2.0: 1e4})
    assert values("lazy_networks_grok", lazy) == pytest.approx(np.log10([2.0, 16.0 / 1.5]))
    rich = grokking(tmp_path / "rich", {**DELAYS, 0.02: 1e4})
    reason = evaluated("rich_networks_do_not_grok", rich).reason
    assert "4 of 4 networks have no number, because their losses have not fallen so far" in reason


def test_a_kernel_that_does_not_align_has_no_share_of_its_rise(tmp_path: Path) -> None:
    runs = evolution(tmp_path)
    rewrite_curves(tmp_path, lambda _: {"kernel_evolution/label_alignment": 0.2})
    assert "does not rise" in evaluated("silent_alignment", runs).reason


def test_exponents_of_changes_by_layer(tmp_path: Path) -> None:
    """At the end they are those given; after the first step, of the stored curves, 0, and -1/2 of F = alpha f."""
    exponents = {"hidden.0": 0.0, "hidden.1": 0.5, "hidden.2": 0.25, "head": -0.5}
    runs = load_runs(made_sweep(tmp_path, scales=(1.0,), arrays=False)).assign(lr=0.1)
    for layer, exponent in exponents.items():
        runs[f"activation_drift/{layer}"] *= runs["h"] ** exponent
    every = [0.0, 0.0, 0.0, -0.5, 0.0, 0.5, 0.25, -1.0]
    assert values("mup_changes", runs) == pytest.approx(every, abs=1e-9)
    assert values("equal_rates_first_layer", runs) == pytest.approx([0.0, 0.0], abs=1e-9)
    assert values("equal_rates_further_layers", runs) == pytest.approx([0.0, 0.0, -0.5, 0.5, 0.25, -1.0], abs=1e-9)
    assert labels("equal_rates_first_layer", runs) == ["hidden.0 after one step", "hidden.0 at the end"]


def noise() -> pd.DataFrame:
    """Quantities T^p/alpha at three temperatures; at the highest one seed of alpha = 0.1 has not met its margins."""
    rows = []
    for rate, alpha, seed in itertools.product((0.1, 1.0, 10.0), (0.1, 1.0, 10.0), range(3)):
        met = (rate, alpha, seed) != (10.0, 0.1, 2)
        T = rate / 10
        rows.append(
            {
                "h": 30, "alpha": alpha, "seed": seed, "model.optimizer.lr": rate, "data.batch_size": 10,
                "displacement/total": T**0.5 / alpha * (1 + 0.1 * seed),
                "kernel_drift/total": T**0.25 / alpha,
                "t": T / alpha,
                "reason": "margins_met" if met else "max_epochs",
            }
        )  # fmt: skip
    return pd.DataFrame(rows).assign(**{"status": "finished", "model": "network", "model.batch_seed": "weights"})


def test_growth_with_the_temperature_where_all_seeds_met_their_margins() -> None:
    runs = noise()
    assert values("noise_moves_weights", runs) == pytest.approx([0.5, 1.0, 1.0])
    assert values("noise_takes_time", runs) == pytest.approx([1.0, 2.0, 2.0])
    assert values("noise_leaves_the_lazy_regime", runs) == pytest.approx([0.5, 0.5])
    assert labels("noise_moves_weights", runs)[:2] == ["alpha = 0.1, T = 0.01 to 0.1", "alpha = 1, T = 0.01 to 1"]
    one = runs[runs["model.optimizer.lr"] == 1.0]
    assert "met their margins at two temperatures" in evaluated("noise_takes_time", one).reason
    wider = pd.concat([runs, runs.assign(h=60)], ignore_index=True)
    assert "2 widths, expected one" in evaluated("noise_takes_time", wider).reason


def learning_curves(sizes: Sequence[int] = (50, 100, 200)) -> pd.DataFrame:
    """Errors n^-0.4 of h = 30 and n^-0.6 of h = 100, with a factor of the training set."""
    exponents = {30: -0.4, 100: -0.6}
    rows = [
        {
            "h": h, "alpha": scale / h**0.5, "sqrt_h_alpha": scale, "seed": seed, "data.n_train": n,
            "data.train_seed": data, "test/error": n**exponent * (1 + 0.1 * data),
        }
        for n, (h, exponent), scale, data, seed in itertools.product(
            sizes, exponents.items(), (0.1, 1000.0), (0, 1, 2), (0, 1)
        )
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(status="finished", model="network")


def test_exponents_of_learning_curves_are_subtracted() -> None:
    runs = learning_curves()
    assert values("narrow_learning_curves", runs) == pytest.approx([0.2, 0.2])
    assert labels("narrow_learning_curves", runs) == ["sqrt(h) alpha = 0.1", "sqrt(h) alpha = 1000"]
    assert "no two widths" in evaluated("narrow_learning_curves", runs[runs["h"] == 30]).reason
    assert "no exponent" in evaluated("narrow_learning_curves", runs.assign(**{"test/error": 0.0})).reason


@pytest.mark.parametrize("key", ["data.train_seed", "data.n_train"])
def test_learning_curves_of_other_training_sets_are_not_paired(key: str) -> None:
    """Also where as many are left: the first of the narrow networks and the last of the wide ones are missing."""
    runs = learning_curves(sizes=(50, 100, 200, 400))
    first, last = runs[key].min(), runs[key].max()
    other = runs[~((runs["h"] == 30) & (runs[key] == first)) & ~((runs["h"] == 100) & (runs[key] == last))]
    assert "on other training sets" in evaluated("narrow_learning_curves", other).reason


def test_variances_and_gains_at_most_samples_against_sums_over_the_files(tmp_path: Path) -> None:
    """Two training sets at n = 400; the lazy networks deviate twice as far. A smaller n has been trained, too."""
    parts, gains = [], []
    for number in range(2):
        folder = made_sweep(tmp_path / f"set_{number}", widths=[30, 100], scales=[0.1, 1000.0], seeds=3)
        for run in sorted(folder.iterdir()):
            arrays = load_file(run / "outputs.safetensors")
            y = arrays["test/labels"]
            arrays["test/outputs"][3:] = y + 2 * (arrays["test/outputs"][3:] - y)
            if number:
                arrays["test/outputs"][:, :10] *= -1
            save_file(arrays, run / "outputs.safetensors")
            scales = np.split(arrays["test/outputs"] * y, 2)
            gains += [100 * ((one <= 0).mean() - (one.mean(axis=0) <= 0).mean()) for one in scales]
        parts.append(load_runs(folder).assign(**{"data.n_train": 400, "data.train_seed": number}))
    less = load_runs(made_sweep(tmp_path / "less", widths=[30, 100], scales=[0.1, 1000.0], seeds=3))
    runs = pd.concat([*parts, less.assign(**{"data.n_train": 50, "data.train_seed": 0})], ignore_index=True)
    assert values("features_reduce_variance", runs) == pytest.approx([-np.log10(4)] * 2)
    expected = np.reshape(gains, (2, 4)).mean(axis=0)
    assert expected.any()
    assert values("ensembles_at_many_samples", runs) == pytest.approx(expected)
    assert labels("ensembles_at_many_samples", runs)[0] == "h = 30, sqrt(h) alpha = 0.1"
    lazy = runs["sqrt_h_alpha"] > 1
    less = runs[~(lazy & (runs["data.n_train"] == 400) & (runs["data.train_seed"] == 1))]
    for other in (less, runs[lazy]):
        assert "at two alphas on the same training sets" in evaluated("features_reduce_variance", other).reason


def test_runs_without_outputs_or_curves_give_a_reason(tmp_path: Path) -> None:
    runs = load_runs(made_sweep(tmp_path, arrays=False)).assign(**{"data.n_train": 400, "lr": 0.1})
    for path in tmp_path.rglob("curves.parquet"):
        path.unlink()
    assert "outputs.safetensors is missing" in evaluated("ensembles_at_many_samples", runs).reason
    assert "no run has the column" in evaluated("mup_changes", runs).reason
