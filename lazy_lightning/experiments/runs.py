"""Runs as a tidy table: one row a member, and its curves, outputs and kernels a call away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.experiments.index import scan, table
from lazy_lightning.run_files import CURVES, KERNELS, OUTPUTS

WHO = ("run", "member", "id", "point", "family", "model", "alpha", "seed", "h", "sqrt_h_alpha")
"""Columns that say who a member is; its curves carry them too."""

Where = str | Path
Array = NDArray[Any]


def load_runs(paths: Where | Sequence[Where], duplicates: bool = False) -> pd.DataFrame:
    """All members of the runs in some folders, one row each.

    Columns: who (``run``, ``path``, ``member``, ``id``; ``point``, equal for members that differ in their seed alone;
    ``family``, equal for those that differ in alpha and seed alone; ``model``, ``alpha``, ``seed``, ``h``,
    ``sqrt_h_alpha``), how it ended (``status``: finished, failed, unfinished; ``reason``), the configuration with keys
    as on the command line (``model.network.width``, ``data.n_train``), and the last value of every observed column
    (``test/error``, ``kernel_drift/total``, ``t1/half_loss``).

    ``runs.curves.load()`` gives the observations of these members, ``runs.outputs.load("test")`` their outputs, and
    ``runs.kernels.load()`` the kernels kept by ``KernelSnapshots``, for any selection of rows.

    Args:
        paths: folders of runs, of sweeps, or of anything above them.
        duplicates: keep members that are there more than once.

    Raises:
        DataError: there is no such folder, no run in it, or a damaged one.
    """
    roots = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    missing = [str(root) for root in roots if not root.is_dir()]
    if missing:
        raise DataError(f"there is no folder {', '.join(missing)}: give the folder of a run, a sweep, or runs")
    found = table([row for root in roots for row in scan(root)], duplicates)
    if found.empty:
        names = ", ".join(str(root) for root in roots)
        raise DataError(f"there is no run in {names}: a run's folder holds a config.yaml and what fit has written")
    return found


@pd.api.extensions.register_dataframe_accessor("curves")
class CurvesAccessor:
    """``runs.curves``: the observations of the members in a table of :func:`load_runs`."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    def load(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """In long form: who the member is, ``observation``, ``wall``, ``t``, and the columns asked for, or all.

        Columns that a run does not have are NaN there. Members without curves have no rows.

        Raises:
            ConfigError: no run has one of the columns.
        """
        parts = [self._of_run(Path(str(path)), rows, columns) for path, rows in self._runs.groupby("path", sort=False)]
        kept = [part for part in parts if part is not None]
        curves = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=[*WHO, "observation", "t"])
        lacking = sorted(set(columns or ()) - set(curves.columns))
        if lacking:
            raise ConfigError(f"no run has the column {lacking[0]}: there are {', '.join(sorted(self.names()))}")
        return curves

    def names(self) -> set[str]:
        """Of all columns that some run has."""
        paths = (Path(str(path)) / CURVES for path in self._runs["path"].unique())
        return {name for path in paths if path.is_file() for name in _columns(path)}

    def _of_run(self, path: Path, rows: pd.DataFrame, columns: Sequence[str] | None) -> pd.DataFrame | None:
        file = path / CURVES
        if not file.is_file():
            return None
        there = _columns(file)
        wanted = None
        if columns is not None:
            wanted = [name for name in dict.fromkeys(["observation", "member", "wall", "t", *columns]) if name in there]
        with _told_if_damaged(file):
            read = pd.read_parquet(file, columns=wanted).drop(columns=["alpha", "seed"], errors="ignore")
        who = rows[[name for name in WHO if name in rows]]
        return who.merge(read, on="member", how="inner", validate="one_to_many")


class MemberOutputs(NamedTuple):
    """F of some members on one set."""

    outputs: Array
    """(M, n) or (M, n, c), in the order of the rows."""
    labels: Array
    """(n,)"""
    index: Array  # type: ignore[assignment]  # hides tuple.index, which has no use for arrays
    """(n,) where each sample stands in its source."""


@pd.api.extensions.register_dataframe_accessor("outputs")
class OutputsAccessor:
    """``runs.outputs``: F of the members in a table of :func:`load_runs`, at the end of their training."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    @property
    def available(self) -> bool:
        """Whether every member's outputs have been kept."""
        return all((Path(str(path)) / OUTPUTS).is_file() for path in self._runs["path"].unique())

    def load(self, which: Literal["train", "test"] = "test") -> MemberOutputs:
        """Of all rows, on the set that they have in common.

        Raises:
            DataError: outputs are missing, or the members were given different samples.
        """
        labels, index = None, None
        collected: dict[int, Array] = {}
        for position, member, arrays in _by_member(self._runs, OUTPUTS):
            if index is None:
                labels, index = arrays[f"{which}/labels"], arrays[f"{which}/index"]
            elif not np.array_equal(index, arrays[f"{which}/index"]):
                raise DataError(f"these runs have different {which} samples: choose rows with the same data")
            collected[position] = arrays[f"{which}/outputs"][member]
        if labels is None or index is None:
            raise DataError("there are no runs to load outputs from")
        return MemberOutputs(np.stack([collected[i] for i in range(len(self._runs))]), labels, index)


class Snapshot(NamedTuple):
    """The kernels of one member before and after training, summed over outputs."""

    start: Array
    """(n, n)"""
    end: Array
    """(n, n)"""
    labels: Array
    """(n,)"""


@pd.api.extensions.register_dataframe_accessor("kernels")
class KernelsAccessor:
    """``runs.kernels``: the tangent kernels that were kept of some of the members in a table of :func:`load_runs`."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    def load(self) -> dict[int, Snapshot]:
        """By the row's label in the table; rows whose kernels were not kept are left out."""
        found = {}
        kept = self._runs[[(Path(str(path)) / KERNELS).is_file() for path in self._runs["path"]]]
        for position, member, arrays in _by_member(kept, KERNELS):
            for i in np.flatnonzero(arrays["member"] == member):
                found[kept.index[position]] = Snapshot(arrays["start"][i], arrays["end"][i], arrays["labels"])
        return found


def _by_member(runs: pd.DataFrame, file: str) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Position of a row, its number in its run, and the run's arrays, each file read once."""
    numbered = runs.assign(_position=range(len(runs)))
    for path, rows in numbered.groupby("path", sort=False):
        target = Path(str(path)) / file
        if not target.is_file():
            raise DataError(f"{target} is missing: the run was interrupted, or written without it")
        with _told_if_damaged(target):
            arrays = load_file(target)
        for position, member in zip(rows["_position"].tolist(), rows["member"].tolist(), strict=True):
            yield position, member, arrays


def _members(runs: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("path", "member") if name not in runs]
    if missing:
        raise AttributeError(f"this table has no column {missing[0]}: it is not one of load_runs")
    return runs


def _columns(path: Path) -> list[str]:
    from pyarrow import parquet

    with _told_if_damaged(path):
        return list(parquet.read_schema(path).names)


@contextmanager
def _told_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:  # of which pyarrow's are
        said = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({said}): remove the run, or leave its rows out") from error
