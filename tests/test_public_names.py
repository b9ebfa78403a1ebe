"""The names that a user imports: they exist, type checkers see them, and torch is imported on first use alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lazy_lightning
import lazy_lightning.ntk

TOP = {
    "FlowModule",
    "KernelModule",
    "LinearizedNetwork",
    "MiniBatchModule",
    "MomentumFlow",
    "empirical_ntk",
    "load_runs",
}
NTK = {
    "KernelComparison",
    "KernelRegression",
    "effective_rank",
    "eigensystem",
    "eigenvalues",
    "infinite_width_kernels",
    "infinite_width_of",
    "intrinsic_dimension",
    "kernel_alignment",
    "label_alignment",
    "label_overlap",
    "label_rank",
    "relative_drift",
}


@pytest.mark.parametrize(("module", "names"), [(lazy_lightning, TOP), (lazy_lightning.ntk, NTK)], ids=["top", "ntk"])
def test_public_names_are_exported_and_exist(module, names):
    assert names <= set(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(module.__all__) <= set(dir(module))


def test_type_checkers_see_every_lazy_name_where_it_is_imported_from():
    tree = ast.parse(Path(lazy_lightning.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == lazy_lightning._PUBLIC
    assert sorted(seen) == sorted(lazy_lightning.__all__)


def test_the_package_and_its_version_need_no_torch():
    code = "import sys, lazy_lightning as l; l.__version__; dir(l); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
