"""The structured tangent kernel against what people write with ``torch.func``, and against a loop over samples.

    python benchmarks/ntk.py [--device cuda] [--neural-tangents PYTHON] [--out benchmarks/results/ntk-cpu.json]

All compute the (n, n) kernel of one output, summed over all layers, at the same weights, and are compared first:

* ``structured``: ``empirical_ntk``; half of the pairs, since the kernel is symmetric.
* ``jacobian``: per-sample Jacobians by ``vmap(jacrev)``, then one matrix product, as PyTorch's tutorial on tangent
  kernels has it.
* ``jvp_vjp``: that tutorial's other way, a vjp and a jvp for each pair of samples. At a small n of its own.
* ``loop``: a backward pass for each sample, then one matrix product.
* ``neural_tangents``: the same network in another library, run by the interpreter that ``--neural-tangents`` names;
  the faster of its implementations that work there, compiled before.

In one process, in turn; times are medians over rounds. What would not fit in memory, or take longer than ``--limit``
seconds, is not run: its time is then extrapolated from few samples (the Jacobian grows as n, the product as n^2 at the
measured rate), and marked so. Peak memory is what one call adds to what is held before.

``floor_gflop`` counts the products that no method can do without: forward, backward to each layer's output, and half
of each layer's Gram matrices (for a convolution by the cheaper of its two forms); ``share`` is the part of this
machine's measured rate of matrix products that the structured kernel reaches by that count.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import subprocess
from collections.abc import Callable, Sequence

import torch
from timing import Rows, machine, output_options, peak_mib, product_rate, seconds
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from lazy_lightning.memory import available_bytes, readable
from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk

INPUTS, DEPTH, IMAGES, FEW = 64, 3, (3, 32, 32), 20
Work = Callable[[Tensor], Tensor]


def structured(net: nn.Module, x: Tensor) -> Tensor:
    return empirical_ntk(net, None, x, output="trace", method="structured")


def jacobian(net: nn.Module, x: Tensor) -> Tensor:
    params = {name: p.detach() for name, p in net.named_parameters()}

    def single(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(net, params, (sample.unsqueeze(0),)).squeeze(0)

    blocks = vmap(jacrev(single), (None, 0))(params, x)
    rows = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
    return rows @ rows.T


def jvp_vjp(net: nn.Module, x: Tensor) -> Tensor:
    params = {name: p.detach() for name, p in net.named_parameters()}

    def single(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(net, params, (sample.unsqueeze(0),)).squeeze(0)

    def pair(one: Tensor, other: Tensor) -> Tensor:
        outputs, pull = vjp(lambda params: single(params, one), params)

        def column(unit: Tensor) -> Tensor:
            return jvp(lambda params: single(params, other), (params,), pull(unit))[1]

        return vmap(column)(torch.eye(len(outputs), dtype=x.dtype, device=x.device))

    return vmap(vmap(pair, (None, 0)), (0, None))(x, x)[:, :, 0, 0]


def loop(net: nn.Module, x: Tensor) -> Tensor:
    weights = [p.requires_grad_() for p in net.parameters()]
    rows = []
    for sample in x:
        gradients = torch.autograd.grad(net(sample.unsqueeze(0)).sum(), weights)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    stacked = torch.stack(rows)
    return stacked @ stacked.T


RIVALS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "structured": structured,
    "jacobian": jacobian,
    "loop": loop,
}


def fully_connected(width: int) -> nn.Module:
    return FC(width, DEPTH, "relu", input_shape=INPUTS)


def convolutional(channels: int) -> nn.Module:
    """Three convolutions of stride 2 on 3 x 32 x 32."""
    sizes = [(IMAGES[0], channels), (channels, 2 * channels), (2 * channels, 2 * channels)]
    layers = [part for i, o in sizes for part in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * channels * 16, 1))


def floor(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds of the products, times two."""
    shapes: list[tuple[int, int, int, int]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        shapes.append((positions, weight[0].numel(), weight.shape[0], weight.numel()))

    own = [module for module in net.modules() if "weight" in module._parameters]
    handles = [module.register_forward_hook(note) for module in own]
    with torch.no_grad():
        net(x[:1])
    for handle in handles:
        handle.remove()
    n = len(x)
    forward = sum(t * weights for t, _, _, weights in shapes)
    backward = sum(t * weights for t, _, _, weights in shapes[1:])
    # One position: two Gram matrices. Many: these at all pairs of positions, or the Jacobian and its Gram matrix.
    pairs = sum(p + q if t == 1 else min(t * t * (p + q), weights) for t, p, q, weights in shapes)
    return 2 * n * (forward + backward) + n * (n + 1) * pairs


def extrapolated(work: Work, net: nn.Module, x: Tensor, rate: float) -> float:
    """Seconds for all of x, from few samples."""
    few = x[:FEW]
    work(few)
    each = seconds(lambda: work(few), 1, x.device) / len(few)
    return each * len(x) + 2 * len(x) ** 2 * weights_of(net) / rate


def weights_of(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def why_not(name: str, net: nn.Module, x: Tensor, expected: float, limit: float) -> str | None:
    """The reason for which a rival is not run."""
    needed = 2 * len(x) * weights_of(net) * x.element_size()  # blocks or rows, and the matrix they are put into
    if name != "structured" and needed > available_bytes(x.device):
        return f"its Jacobian needs {readable(needed)}"
    if expected > limit:
        return f"over {limit:g} s"
    return None


def measured(net: nn.Module, x: Tensor, rate: float, options: argparse.Namespace) -> dict[str, object]:
    """One network: times, memory, ratios."""
    works = {name: functools.partial(rival, net) for name, rival in RIVALS.items()}
    check_agreement([*works.values(), functools.partial(jvp_vjp, net)], x[:5])
    row: dict[str, object] = {"n": len(x), "weights": weights_of(net)}
    expected = {name: extrapolated(work, net, x, rate) for name, work in works.items()}
    expected["structured"] = 0.0  # it is what we are here for
    reasons = {name: why_not(name, net, x, expected[name], options.limit) for name in works}
    times = rounds({name: works[name] for name in works if not reasons[name]}, x, options.budget)
    for name, work in works.items():
        if reason := reasons[name]:
            row |= {f"{name}_s": round(expected[name], 3), f"{name}_note": f"extrapolated, not run: {reason}"}
        else:
            peak = peak_mib(lambda work=work: work(x), x.device)
            row |= {f"{name}_s": round(times[name], 5), f"{name}_mib": None if peak is None else round(peak, 1)}
    ours = times["structured"]
    row |= {
        f"{name}_ratio": round((times.get(name) or expected[name]) / ours, 2) for name in works if name != "structured"
    }
    few = x[: options.few]
    small = rounds({"structured": works["structured"], "jvp_vjp": functools.partial(jvp_vjp, net)}, few, options.budget)
    row |= {"jvp_vjp_n": len(few), "jvp_vjp_s": round(small["jvp_vjp"], 5)}
    row["jvp_vjp_ratio"] = round(small["jvp_vjp"] / small["structured"], 2)
    work = floor(net, x)
    return row | {"floor_gflop": round(work / 1e9, 3), "share": round(work / rate / ours, 3)}


def check_agreement(works: Sequence[Work], x: Tensor) -> None:
    first, *others = [work(x).detach() for work in works]
    tolerance = 1e-10 if x.dtype == torch.float64 else 1e-3
    for other in others:
        torch.testing.assert_close(other, first, rtol=0.0, atol=tolerance * float(first.abs().max()))


def rounds(works: dict[str, Work], x: Tensor, budget: float) -> dict[str, float]:
    """Median seconds of one call, in turn: 3 to 30 rounds."""
    once = {name: seconds(lambda work=work: work(x), 1, x.device) for name, work in works.items()}  # and warms up
    count = max(3, min(30, int(budget / max(once.values()))))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(count):
        for name, work in works.items():
            times[name].append(seconds(lambda work=work: work(x), 1, x.device))
    return {name: statistics.median(own) for name, own in times.items()}


NEURAL_TANGENTS = """
import json, sys, time
import jax
options = json.loads(sys.argv[1])
jax.config.update("jax_enable_x64", options["dtype"] == "float64")
import neural_tangents as nt
from neural_tangents import stax
layers = [part for _ in range(options["depth"]) for part in (stax.Dense(options["width"]), stax.Relu())]
init, apply, _ = stax.serial(*layers, stax.Dense(1))
key = jax.random.PRNGKey(0)
_, params = init(key, (1, options["inputs"]))
x = jax.random.normal(key, (options["n"], options["inputs"]), dtype=options["dtype"])
best = {}
for way in nt.NtkImplementation:
    try:
        kernel = jax.jit(nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=way))
        kernel(x, None, params).block_until_ready()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            kernel(x, None, params).block_until_ready()
            times.append(time.perf_counter() - start)
        best[way.name] = sorted(times)[2]
    except Exception as error:
        print(way.name, type(error).__name__, file=sys.stderr)
way = min(best, key=best.get)
print(json.dumps({"s": best[way], "way": way, "nt": nt.__version__, "jax": jax.__version__}))
"""


def neural_tangents(python: str, width: int, n: int, dtype: str, limit: float) -> dict[str, object]:
    """Seconds of the other library on the fully connected network, or why there are none."""
    options = json.dumps({"width": width, "depth": DEPTH, "inputs": INPUTS, "n": n, "dtype": dtype})
    command = [python, "-W", "ignore", "-c", NEURAL_TANGENTS, options]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20 * limit, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"neural_tangents_note": f"not run: {type(error).__name__}"}
    found = json.loads(ran.stdout.splitlines()[-1])
    versions = f"neural-tangents {found['nt']}, jax {found['jax']}, {found['way'].lower()}"
    return {"neural_tangents_s": round(found["s"], 5), "neural_tangents_note": versions}


def samples(shape: tuple[int, ...], n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    x = torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).flatten(1)
    return (x * math.sqrt(x.shape[1]) / x.norm(dim=1, keepdim=True)).view(n, *shape).to(device, dtype)


def measure(options: argparse.Namespace, device: torch.device, rows: Rows, rate: float) -> None:
    """All cases."""
    dtype = getattr(torch, options.dtype)
    cases = [("fc", h, n, (INPUTS,)) for h in options.widths for n in options.samples]
    cases += [("cnn", channels, options.images, IMAGES) for channels in options.channels]
    for kind, size, n, shape in cases:
        work = functools.partial(one_case, kind, size, samples(shape, n, dtype, device), rate, options)
        rows.add({"network": kind, "h": size, "n": n}, work)


def one_case(kind: str, size: int, x: Tensor, rate: float, options: argparse.Namespace) -> dict[str, object]:
    """One network against all rivals."""
    torch.manual_seed(0)
    net = (fully_connected if kind == "fc" else convolutional)(size).to(x.device, x.dtype)
    row = measured(net, x, rate, options)
    if options.neural_tangents and kind == "fc":
        row |= neural_tangents(options.neural_tangents, size, len(x), options.dtype, options.limit)
        if theirs := row.get("neural_tangents_s"):
            row["neural_tangents_ratio"] = round(theirs / row["structured_s"], 2)  # type: ignore[operator]
    return row


def table(rows: list[dict[str, object]]) -> str:
    """How many times longer the others take."""
    ratios = ["jacobian_ratio", "loop_ratio", "jvp_vjp_ratio", "neural_tangents_ratio"]
    head = ["network", "h", "n", "structured_s", *ratios, "share"]
    lines = [[key.removesuffix("_ratio") for key in head]]
    for row in rows:
        shown = {key: str(row.get(key, "")) for key in head}
        for key in ratios:
            if "extrapolated" in str(row.get(key.replace("ratio", "note"), "")):
                shown[key] = "~" + shown[key]
        lines.append(list(shown.values()))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--widths", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--channels", type=int, nargs="*", default=[16], help="of the first convolution")
    parser.add_argument("--images", type=int, default=100, help="samples of the convolutional network")
    parser.add_argument("--few", type=int, default=50, help="samples of the jvp-vjp way")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds a call may take")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a rival and case")
    parser.add_argument("--product", type=int, default=2048, help="rows of the matrices whose product is timed")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="an interpreter that has neural-tangents")
    output_options(parser)
    options = parser.parse_args()
    device = torch.device(options.device)
    rate = product_rate(getattr(torch, options.dtype), device, options.product)
    result: dict[str, object] = {**machine(device), "dtype": options.dtype, "L": DEPTH, "d": INPUTS}
    print(result)
    rows = Rows(options, result, ("network", "h", "n"))
    rows.head["gemm_gflops"] = round(rate / 1e9, 1)
    measure(options, device, rows, rate)
    print("times over structured (~ extrapolated), and the share of the matrix-product rate by the floor:")
    print(table(rows.rows))


if __name__ == "__main__":
    main()
