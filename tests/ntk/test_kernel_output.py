"""Where kernels are written, what is said while they are computed, and what is known of memory."""

import numpy as np
import pytest
import torch
from closeness import assert_close
from ntk_cases import CASES

from lazy_lightning import memory
from lazy_lightning.errors import RunError
from lazy_lightning.memory import available_bytes, readable, require_bytes
from lazy_lightning.ntk import empirical_ntk, empirical_ntk_diagonal, kernel_file, progress_bar
from lazy_lightning.ntk.tangent_map import TangentMap

CASE = CASES["fc with biases and three outputs"]
NET = CASE.network()
X1, X2 = CASE.pairs()
METHODS = pytest.mark.parametrize("method", ["auto", "jacobian", "jvp"])
SHAPES = {"full": (5, 4, 3, 3), "diagonal": (5, 4, 3), "trace": (5, 4), "mean": (5, 4)}


@METHODS
@pytest.mark.parametrize("output", SHAPES)
def test_a_tensor_is_filled_and_given_back(method, output):
    out = torch.full(SHAPES[output], torch.nan, dtype=torch.float64)
    found = empirical_ntk(NET, None, X1, X2, output=output, method=method, out=out, tile=2)
    assert found is out
    assert_close(out, empirical_ntk(NET, None, X1, X2, output=output))


@METHODS
def test_single_precision_is_rounded_once(method):
    """What is computed in double precision is written to 24 bits."""
    out = torch.zeros(5, 5, dtype=torch.float32)
    empirical_ntk(NET, None, X1, output="mean", method=method, out=out)
    assert_close(out, empirical_ntk(NET, None, X1, output="mean").float(), rtol=1.2e-7)


@METHODS
def test_any_layout_of_memory(method):
    out = torch.zeros(3, 4, 3, 10, dtype=torch.float64).permute(3, 1, 0, 2)[::2]
    empirical_ntk(NET, None, X1, X2, method=method, out=out)
    assert_close(out, empirical_ntk(NET, None, X1, X2))


@METHODS
def test_members_fill_theirs(method):
    weights = {n: torch.stack([p, 0.5 * p]).detach() for n, p in NET.named_parameters()}
    out = np.zeros((2, 5, 5), dtype=np.float32)
    found = empirical_ntk(NET, weights, X1, output="trace", method=method, out=out)
    assert np.shares_memory(found.numpy(), out)
    assert_close(torch.from_numpy(out).double(), empirical_ntk(NET, weights, X1, output="trace"), rtol=1e-7)


@METHODS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_file_is_filled_tile_by_tile(method, dtype, tmp_path):
    path = tmp_path / "deep" / "kernel.npy"
    with kernel_file(path, (5, 5), dtype) as array:
        assert isinstance(array, np.memmap)
        empirical_ntk(NET, None, X1, output="trace", method=method, out=array, tile=2)
        assert not path.exists()
    held = np.load(path, mmap_mode="r", allow_pickle=False)
    assert held.dtype == dtype
    assert_close(held.copy(), empirical_ntk(NET, None, X1, output="trace").numpy().astype(dtype), rtol=1.2e-7)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_nothing_and_keeps_the_old_one(error, tmp_path):
    def interrupted():
        with kernel_file(path, (5, 5)) as array:
            array[0] = 1.0
            raise error

    path = tmp_path / "kernel.npy"
    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    np.save(path, np.eye(2))
    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert (np.load(path) == np.eye(2)).all()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"), kernel_file(tmp_path / "file" / "kernel.npy", (2, 2)):
        pass


@METHODS
@pytest.mark.parametrize("progress", [None, False, True])
def test_progress_is_shown_when_asked_for(method, progress, capsys):
    """None shows it in a terminal alone, which this is not."""
    empirical_ntk(NET, None, X1, method=method, progress=progress, tile=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("tangent kernel" in shown.err) == (progress is True)


@pytest.mark.parametrize(("patience", "seen"), [(0.0, True), (60.0, False)])
def test_a_terminal_sees_progress_of_long_work_only(patience, seen, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "_PATIENCE", patience)
    empirical_ntk(NET, None, X1, tile=1)
    assert ("tangent kernel" in capsys.readouterr().err) == seen


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("budget", [None, 1, 4000])
@pytest.mark.parametrize("other", [None, X2])
def test_progress_ends_at_its_total(tile, budget, other, monkeypatch):
    """However the kernel is cut, and transposes count twice."""
    seen = []

    def spy(items, total, what, progress, size):
        for item in items:
            seen.append(size(item))
            yield item
        assert sum(seen) == total

    monkeypatch.setattr("lazy_lightning.ntk.empirical.with_progress_bar", spy)
    empirical_ntk(NET, None, X1, other, tile=tile, memory=budget)
    assert seen


def test_lack_of_memory_on_the_way_stays_what_it_is(monkeypatch):
    """It is not taken for a network that cannot be differentiated."""

    def full(*args):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("lazy_lightning.ntk.jacobian.mapped_rows", full)
    with pytest.raises(torch.OutOfMemoryError):
        empirical_ntk_diagonal(NET, None, X1, method="jacobian")
    monkeypatch.setattr(TangentMap, "push", full)
    with pytest.raises(torch.OutOfMemoryError):
        empirical_ntk(NET, None, X1, method="jvp")


CPU = torch.device("cpu")


def group(folder, limit, used, inactive):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 3\n")


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A host with 1000 KiB free, the control groups in a folder, and a heap that keeps nothing."""
    monkeypatch.setattr(memory.heap, "free_bytes", lambda: 0)
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n")
    (tmp_path / "membership").write_text("1:name=systemd:/\n0::/job/step\n")
    for name, path in (("_MEMINFO", "meminfo"), ("_MEMBERSHIP", "membership"), ("_CGROUP", "groups")):
        monkeypatch.setattr(memory, name, tmp_path / path)
    return tmp_path / "groups"


def test_memory_of_a_host_without_groups(container):
    assert available_bytes(CPU) == 1000 * 1024
    (container.parent / "membership").unlink()
    assert available_bytes(CPU) == 1000 * 1024


def test_memory_of_the_tightest_group(container):
    group(container / "job" / "step", "max", 10, 0)
    assert available_bytes(CPU) == 1000 * 1024
    group(container / "job", 5000, 4000, 0)
    assert available_bytes(CPU) == 1000
    group(container / "job" / "step", 900, 300, 0)
    assert available_bytes(CPU) == 600


def test_files_read_lately_count_as_free(container):
    """Else a container that has read its data would seem full."""
    group(container, 10_000, 9_900, 8_000)
    assert available_bytes(CPU) == 8_100


def test_what_the_heap_keeps_counts_as_free(container, monkeypatch):
    monkeypatch.setattr(memory.heap, "free_bytes", lambda: 300)
    assert available_bytes(CPU) == 1000 * 1024 + 300


def test_memory_that_suffices_and_that_does_not(container):
    require_bytes(1000 * 1024, CPU, "this", "do that")
    with pytest.raises(RunError, match=r"^this needs 2\.0 MiB, but 1000\.0 KiB are free on cpu: do that$"):
        require_bytes(2 << 20, CPU, "this", "do that")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2e12, "1862.6 GiB")]
)
def test_bytes_for_a_person(size, text):
    assert readable(size) == text
