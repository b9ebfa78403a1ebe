"""The user's own table: a CSV or parquet file with a row for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.labels import numbered
from lazy_lightning.data.pool import Pool
from lazy_lightning.errors import ConfigError, DataError


def _read_csv(path: Path) -> pd.DataFrame:
    """Reads the numbers of a CSV file exactly, whose last digit pandas 2 misses by default."""
    return pd.read_csv(path, float_precision="round_trip" if pd.__version__ < "3" else None)


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": pd.read_parquet}


class TableFile(ImageData):
    """Samples from a CSV or parquet file: some columns are the inputs ``(n, d)``, one or several the targets.

    A target column of integers, truth values or texts holds classes (texts are numbered in sorted order, and can be
    used as class names in ``labels``). With ``labels: regression`` the target columns are real numbers, (n,) for one
    and (n, c) for several.

    Args:
        path: the file, ``.csv`` (comma-separated, with a header) or ``.parquet``.
        targets: the name of the target column, or several names for a regression on several targets.
        features: names of the input columns; null for all others.
        options: labels, preprocessing, sizes and seeds of :class:`ImageData` and :class:`FlowData`.

    Raises:
        ConfigError: the file is of another kind, or no or several target columns are given where one is needed.
        DataError: at setup, when the file is missing or damaged, lacks a column, or a column has missing values or
            is not numeric.
    """

    def __init__(self, path: str, targets: str | list[str], features: list[str] | None = None, **options: Any) -> None:
        check_arguments(TableFile, locals())
        super().__init__(**options)
        if Path(path).suffix.lower() not in _READERS:
            raise ConfigError(f"path is {path}, expected a .csv or .parquet file; ArrayFile reads .npz files")
        self.path = path
        self.targets = [targets] if isinstance(targets, str) else list(targets)
        self.features = features
        if not self.targets or (len(self.targets) > 1 and self.labels != "regression"):
            raise ConfigError(
                f"targets names {len(self.targets)} columns ({targets}), but labels {self.labels!r} needs one: name "
                "one column, or set labels: regression"
            )

    def load_pool(self) -> Pool:
        """Reads the whole table."""
        table = read_table(Path(self.path).expanduser())
        features = [c for c in table.columns if c not in self.targets] if self.features is None else self.features
        x = _numbers(table, _known(table, features, "features", self.path), self.path)
        names = _known(table, self.targets, "targets", self.path)
        if self.labels == "regression":
            return Pool(x, _numbers(table, names, self.path))
        return Pool(x, self._classes(table[names[0]]))

    def _classes(self, column: pd.Series[Any]) -> Tensor:
        if bool(column.isna().any()):
            raise DataError(f"column {column.name!r} of {self.path} has missing values: fill or remove these rows")
        if pd.api.types.is_float_dtype(column) and bool((column == column.round()).all()):
            column = column.astype(np.int64)  # whole numbers beside an empty field are read as floating-point ones
        if pd.api.types.is_integer_dtype(column) or pd.api.types.is_bool_dtype(column):
            return torch.from_numpy(column.to_numpy(np.int64).copy())
        if pd.api.types.is_float_dtype(column):
            return torch.from_numpy(column.to_numpy(np.float64).copy())  # the labels raise the error that explains it
        texts = column.astype(str)
        self.class_names = numbered(*sorted(set(texts)))
        return torch.tensor([self.class_names[text] for text in texts])


def read_table(path: Path) -> pd.DataFrame:
    """The table that a CSV or parquet file holds; nothing in it is executed.

    Raises:
        DataError: there is no such file, or it is damaged or empty.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}: give the path of a .csv or .parquet file")
    try:
        table = _READERS[path.suffix.lower()](path)
    except (ValueError, OSError, EOFError, OverflowError, pd.errors.ParserError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as a table ({' '.join(str(error).split())[:200]}): write it by pandas' to_csv "
            "or to_parquet, without its index"
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: give fewer rows") from error
    if table.empty:
        raise DataError(f"{path} has no rows: give a table with a row for each sample")
    return table


def _known(table: pd.DataFrame, names: Sequence[str], what: str, path: str) -> list[str]:
    missing = [name for name in names if name not in table.columns]
    if missing or not names:
        raise DataError(
            f"{what} names {missing or 'no column'}, but {path} has the columns "
            f"{', '.join(map(str, table.columns[:20]))}{' ...' if len(table.columns) > 20 else ''}"
        )
    return list(names)


def _numbers(table: pd.DataFrame, names: Sequence[str], path: str) -> Tensor:
    """``(n, len(names))`` float64, finite."""
    chosen = table[list(names)]
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(chosen[name])]
    if texts:
        raise DataError(
            f"columns {texts[:5]} of {path} are not numeric: name the numeric input columns in features, or encode "
            "these"
        )
    values = chosen.to_numpy(np.float64, na_value=np.nan)
    bad = [name for name, fine in zip(names, np.isfinite(values).all(axis=0), strict=True) if not fine]
    if bad:
        raise DataError(
            f"columns {bad[:5]} of {path} have missing values, or some that are not finite: fill or remove these rows"
        )
    return torch.from_numpy(np.array(values, order="C"))
