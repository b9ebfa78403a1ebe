"""Runs as a tidy table with one row for each member, and accessors for its curves, outputs and kernels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs.array_checksum import require_checksum
from lazy_lightning.runs.index import read_store, table
from lazy_lightning.runs.run_files import CURVES, KERNELS, OUTPUTS
from lazy_lightning.runs.run_folder import column_name

IDENTITY_COLUMNS = ("run", "member", "id", "point", "family", "model", "alpha", "seed", "h", "sqrt_h_alpha")
"""Columns that identify a member; its curves have them too."""

_log = logging.getLogger(__name__)

PathLike = str | Path
Array = NDArray[Any]


def load_runs(
    paths: PathLike | Sequence[PathLike], duplicates: bool = False, on_damaged: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """Returns a table of all members of the runs in some folders, with one row for each member.

    The columns are the member's identity (``run``, ``path``, ``member``, ``id``; ``point``, equal for members that
    differ only in their seed; ``family``, equal for members that differ only in alpha and seed; ``model``, ``alpha``,
    ``seed``, ``h``, ``sqrt_h_alpha``), its end (``status``: finished, failed, unfinished; ``reason``), the
    configuration with the keys of the command line (``model.network.width``, ``data.n_train``), and the last value of
    every observed column (``test/error``, ``kernel_drift/total``, ``t1/half_loss``).

    ``runs.curves.load()`` gives the observations of these members, ``runs.outputs.load("test")`` their outputs, and
    ``runs.kernels.load()`` the kernels kept by ``KernelSnapshots``, for any selection of rows.

    Values of a whole run instead of a member are named ``run/...``: ``run/test/ensemble_error`` is the error of the
    average over the seeds in the run.

    Args:
        paths: folders of runs or sweeps, or folders that contain them.
        duplicates: whether to keep all rows of members that were trained more than once.
        on_damaged: called with a message for each run or folder that cannot be read, which is left out; by default
            the message is logged as a warning.

    Raises:
        DataError: a folder does not exist, or there is no run that can be read.
    """
    roots = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    missing = [printable(root) for root in roots if not _is_folder(root)]
    if missing:
        raise DataError(f"there is no folder {', '.join(missing)}: give the folder of a run, a sweep, or runs")
    rows: list[dict[str, Any]] = []
    damaged: list[str] = []
    seen: set[str] = set()
    for root in roots:
        store = read_store(root)
        own = {path: os.path.realpath(path) for path in {row["path"] for row in store.rows}}
        rows += [row for row in store.rows if own[row["path"]] not in seen]
        seen.update(own.values())
        damaged += [sentence for sentence in store.damaged if sentence not in damaged]
    if not rows:
        if damaged:
            others = f" ({len(damaged) - 1} more cannot be read either)" if len(damaged) > 1 else ""
            raise DataError(f"{damaged[0]}{others}")
        names = ", ".join(printable(root) for root in roots)
        raise DataError(f"there is no run in {names}: a run's folder holds a config.yaml and the results of fit")
    for sentence in damaged:
        (on_damaged or _log_damage)(sentence)
    return table(rows, duplicates)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a NUL byte
        return False


def _log_damage(sentence: str) -> None:
    _log.warning("%s", sentence)


@pd.api.extensions.register_dataframe_accessor("curves")
class CurvesAccessor:
    """``runs.curves``: the observations of the members in a table of :func:`load_runs`."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    def load(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns the observations in long form: the member's identity, ``observation``, ``wall``, ``t`` and columns.

        Columns that a run does not have are NaN in its rows. Members without curves have no rows.

        Args:
            columns: the names of the observed columns; None for all.

        Raises:
            ConfigError: a column is in none of the runs.
        """
        parts = [self._of_run(Path(str(path)), rows, columns) for path, rows in self._runs.groupby("path", sort=False)]
        kept = [part for part in parts if part is not None]
        curves = (
            pd.concat(kept, ignore_index=True)
            if kept
            else pd.DataFrame(columns=[*IDENTITY_COLUMNS, "observation", "t"])
        )
        lacking = sorted(set(columns or ()) - set(curves.columns))
        if lacking:
            raise ConfigError(f"no run has the column {lacking[0]}: there are {', '.join(sorted(self.names()))}")
        return curves

    def names(self) -> set[str]:
        """Returns the names of all columns in any of the runs."""
        paths = (Path(str(path)) / CURVES for path in self._runs["path"].unique())
        return {column_name(name) for path in paths if path.is_file() for name in _columns(path)}

    def _of_run(self, path: Path, rows: pd.DataFrame, columns: Sequence[str] | None) -> pd.DataFrame | None:
        file = path / CURVES
        if not file.is_file():
            return None
        selected = [name for name in _columns(file) if name not in IDENTITY_COLUMNS or name == "member"]
        if columns is not None:
            requested = {"observation", "member", "wall", "t", *columns}
            selected = [name for name in selected if column_name(name) in requested]
        read = _curves(file, selected)
        if columns is not None:
            order = [n for n in dict.fromkeys(["observation", "member", "wall", "t", *columns]) if n in read]
            read = read[order]
        identity = rows[[name for name in IDENTITY_COLUMNS if name in rows]]
        return identity.merge(read, on="member", how="inner", validate="one_to_many")


class MemberOutputs(NamedTuple):
    """The outputs F of some members on one data set."""

    outputs: Array
    """Outputs (M, n) or (M, n, c) in the order of the rows."""
    labels: Array
    """Labels (n,) of the samples."""
    index: Array  # type: ignore[assignment]  # overrides tuple.index, which is not needed for arrays
    """Indices (n,) of the samples in their source."""


@pd.api.extensions.register_dataframe_accessor("outputs")
class OutputsAccessor:
    """``runs.outputs``: F of the members in a table of :func:`load_runs`, at the end of their training."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    @property
    def available(self) -> bool:
        """Whether the outputs of all members are stored."""
        return all((Path(str(path)) / OUTPUTS).is_file() for path in self._runs["path"].unique())

    def load(self, which: Literal["train", "test"] = "test") -> MemberOutputs:
        """Returns the outputs of all rows on their common training or test set.

        Raises:
            DataError: outputs are missing, or the runs have different samples.
        """
        labels, index = None, None
        collected: dict[int, Array] = {}
        for position, member, arrays in _by_member(self._runs, OUTPUTS):
            own = arrays[f"{which}/labels"], arrays[f"{which}/index"]
            if "data_seed" in arrays:  # then each member has samples and labels of its own
                own = own[0][member], own[1][member]
            if index is None or labels is None:
                labels, index = own
            elif not (np.array_equal(index, own[1]) and np.array_equal(labels, own[0])):
                raise DataError(f"these members have different {which} samples: choose rows with the same data")
            collected[position] = arrays[f"{which}/outputs"][member]
        if labels is None or index is None:
            raise DataError("there are no runs to load outputs from")
        return MemberOutputs(np.stack([collected[i] for i in range(len(self._runs))]), labels, index)


class Snapshot(NamedTuple):
    """The tangent kernels of one member before and after training, summed over outputs."""

    start: Array
    """Kernel (n, n) at initialisation."""
    end: Array
    """Kernel (n, n) after training."""
    labels: Array
    """Labels (n,) of the samples."""


@pd.api.extensions.register_dataframe_accessor("kernels")
class KernelsAccessor:
    """``runs.kernels``: the stored tangent kernels of members in a table of :func:`load_runs`."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = _members(runs)

    def load(self) -> dict[int, Snapshot]:
        """Returns the kernels by the row's label in the table; rows without stored kernels are left out."""
        found = {}
        kept = self._runs[[(Path(str(path)) / KERNELS).is_file() for path in self._runs["path"]]]
        for position, member, arrays in _by_member(kept, KERNELS):
            for i in np.flatnonzero(arrays["member"] == member):
                found[kept.index[position]] = Snapshot(arrays["start"][i], arrays["end"][i], arrays["labels"])
        return found


def without_damaged_arrays(runs: pd.DataFrame, on_damaged: Callable[[str], None]) -> pd.DataFrame:
    """Returns the rows of a table of :func:`load_runs` whose stored curves, outputs and kernels can be read.

    Args:
        runs: the table.
        on_damaged: called with a message for each run that is left out.
    """
    readable = {}
    for path, rows in _members(runs).groupby("path", sort=False):
        try:
            _require_readable(Path(str(path)), int(rows["member"].max()))
            readable[path] = True
        except DataError as error:
            on_damaged(str(error))
            readable[path] = False
    return runs[runs["path"].map(readable).astype(bool)]


def _require_readable(folder: Path, last: int) -> None:
    if (folder / CURVES).is_file():
        _curves(folder / CURVES, _columns(folder / CURVES))
    for file in (OUTPUTS, KERNELS):
        if (folder / file).is_file():
            _arrays(folder / file, last)


def _curves(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads numeric columns of a run's curves and renames them as in the table of runs."""
    missing = [name for name in ("observation", "member", "t") if name not in columns]
    if missing:
        raise DataError(f"{printable(file)} has no column {missing[0]}: remove the run, or leave its rows out")
    with _warn_if_damaged(file):
        read = pd.read_parquet(file, "pyarrow", list(columns), page_checksum_verification=True)
    wrong = [name for name in read if not pd.api.types.is_numeric_dtype(read[name])]
    if wrong:
        raise DataError(
            f"{printable(file)}: the column {printable(wrong[0])} has the type {read[wrong[0]].dtype}, "
            "expected numbers: remove the run, or leave its rows out"
        )
    return read.rename(columns=column_name)


def _by_member(runs: pd.DataFrame, file: str) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Yields the position of each row, its member number, and the run's arrays, which are read once for each run."""
    numbered = runs.assign(_position=range(len(runs)))
    for path, rows in numbered.groupby("path", sort=False):
        target = Path(str(path)) / file
        if not target.is_file():
            raise DataError(f"{printable(target)} is missing: the run was interrupted, or written without it")
        arrays = _arrays(target, int(rows["member"].max()))
        for position, member in zip(rows["_position"].tolist(), rows["member"].tolist(), strict=True):
            yield position, member, arrays


def _arrays(target: Path, last: int) -> dict[str, Array]:
    """Reads the arrays of one of a run's files and checks their shapes.

    Args:
        target: ``outputs.safetensors`` or ``kernels.safetensors``.
        last: the largest member number that the file must contain.
    """
    with _warn_if_damaged(target):
        arrays: dict[str, Array] = load_file(target)
        with safe_open(target, "numpy") as file:
            require_checksum(arrays, file.metadata())
        if target.name == OUTPUTS:
            for which in ("train", "test"):
                _require_outputs(arrays, which, last)
        else:
            _require_kernels(arrays)
    return arrays


def _require_outputs(arrays: dict[str, Array], which: str, last: int) -> None:
    F, labels, index = (_array(arrays, f"{which}/{what}") for what in ("outputs", "labels", "index"))
    if "data_seed" in arrays and labels.shape[:1] == index.shape[:1] == F.shape[:1]:
        labels, index = labels[0], index[0]
    if F.ndim not in (2, 3) or len(F) <= last or labels.shape[:1] != F.shape[1:2] or index.shape != F.shape[1:2]:
        raise ValueError(
            f"{which}/outputs has the shape {F.shape}, labels {labels.shape} and index {index.shape}, expected (E, n), "
            f"(n,) and (n,) with E > {last}"
        )


def _require_kernels(arrays: dict[str, Array]) -> None:
    start, end, labels, member = (_array(arrays, name) for name in ("start", "end", "labels", "member"))
    n = labels.shape[0] if labels.ndim else -1
    if start.shape != end.shape or start.shape != (len(np.atleast_1d(member)), n, n):
        raise ValueError(
            f"start has the shape {start.shape}, end {end.shape}, labels {labels.shape}, member {member.shape}, "
            "expected (M, n, n), the same, (n,) and (M,)"
        )


def _array(arrays: dict[str, Array], name: str) -> Array:
    if name not in arrays or arrays[name].dtype.kind not in "fiub":
        raise ValueError(f"there is no array {name} of numbers")
    return arrays[name]


def _members(runs: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("path", "member") if name not in runs]
    if missing:
        raise AttributeError(f"this table has no column {missing[0]}: use a table of load_runs")
    return runs


def _columns(path: Path) -> list[str]:
    from pyarrow import parquet

    with _warn_if_damaged(path):
        return list(parquet.read_schema(path).names)


@contextmanager
def _warn_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = printable(" ".join(str(error).split()))
        raise DataError(
            f"{printable(path)} cannot be read ({reason}): remove the run, or leave its rows out"
        ) from error


_DAMAGE = (OSError, ValueError, TypeError, KeyError, NotImplementedError, OverflowError, MemoryError, SafetensorError)
"""Exceptions of pyarrow and safetensors for damaged files; most of those of pyarrow are ValueErrors."""
