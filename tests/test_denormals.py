"""In processes of their own, because the mode belongs to threads that live as long as a process."""

import subprocess
import sys

import pytest

SHOW = "from lazy_lightning.denormals import denormals_are_flushed as f; print(f())"
CASES = {
    "in a notebook": (
        "from lazy_lightning.denormals import flush_denormals; print(flush_denormals());" + SHOW,
        "True\nTrue",
    ),
    "by the command line": (
        "import sys, contextlib, io\nfrom lazy_lightning.cli import main\n"
        "with contextlib.redirect_stderr(io.StringIO()):\n    main(['fit', '--no_such_option'])\n" + SHOW,
        "True",
    ),
    "too late for the workers": (
        "import torch; torch.set_num_threads(2); torch.rand(1_000_000).exp()\n"
        "from lazy_lightning.denormals import flush_denormals; print(flush_denormals())",
        "False",
    ),
}


@pytest.mark.parametrize(("code", "expected"), CASES.values(), ids=CASES)
def test_denormals_are_flushed(code, expected):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(expected)
