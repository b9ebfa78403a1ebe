"""Makes ``neural_tangents_values.json``, the kernels that the package neural-tangents gives for small networks.

Not a test, and not needed by the tests, which read the file. To make it again, in an environment of its own
(neural-tangents 0.6.5 wants jax 0.4.30) and from this folder:

    pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 scipy
    python make_neural_tangents_values.py

relu, erf, gelu and sin have closed forms there. tanh, swish and softplus(5) are integrated by a Gauss-Hermite rule,
with two numbers of nodes: their difference says how far its values can be trusted.
"""

import json
import math
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
from neural_tangents import stax  # noqa: E402
from scipy import integrate  # noqa: E402

# Norms from 0.4 to 2.7 times sqrt(d), one pair nearly parallel, one nearly opposite.
X1 = [[1.1, -0.3, 0.7, 0.2], [0.5, 0.4, -0.2, 0.45], [2.2, -0.61, 1.4, 0.41]]
X2 = [[-1.0, 0.35, -0.8, -0.15], [3.0, 2.0, -1.5, 4.0]]
BIASES = {"no bias": (0.0, 0.0), "biases": (0.3, 0.7)}
CLOSED, NUMERICAL, NODES = ("relu", "erf", "gelu", "sin"), ("tanh", "swish", "softplus(5)"), (120, 180)

PHI = {
    "relu": lambda z: jnp.maximum(z, 0.0),
    "erf": jax.scipy.special.erf,
    "gelu": lambda z: z * jax.scipy.stats.norm.cdf(z),
    "sin": jnp.sin,
    "tanh": jnp.tanh,
    "swish": lambda z: z * jax.nn.sigmoid(z),
    "softplus(5)": lambda z: jnp.logaddexp(5 * z, 0.0) / 5,
}


def layer(name, nodes):
    if name in NUMERICAL:
        return stax.ElementwiseNumerical(PHI[name], deg=nodes)
    return {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu, "sin": stax.Sin}[name]()


def normalising_constant(name):
    def integrand(z):
        return float(PHI[name](z)) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    sides = (integrate.quad(integrand, *side, epsabs=0, epsrel=1e-13, limit=200)[0] for side in ((-13, 0), (0, 13)))
    return sum(sides) ** -0.5


def kernels(name, depth, bias, last_bias, nodes=None):
    """The constant of the activation is given to the weights of the next layer."""
    constant = normalising_constant(name)
    layers = []
    for i in range(depth + 1):
        b = last_bias if i == depth else bias
        layers.append(stax.Dense(1, W_std=constant if i else 1.0, b_std=b or None, parameterization="ntk"))
        if i < depth:
            layers.append(layer(name, nodes))
    kernel_fn = stax.serial(*layers)[2]
    x1, x2 = jnp.array(X1), jnp.array(X2)
    of_one, of_two = (kernel_fn(x1, other, ("nngp", "ntk")) for other in (None, x2))
    return {
        "nngp": of_one.nngp.tolist(),
        "ntk": of_one.ntk.tolist(),
        "nngp_cross": of_two.nngp.tolist(),
        "ntk_cross": of_two.ntk.tolist(),
    }


def difference(a, b):
    return max(float(jnp.abs(jnp.array(a[k]) - jnp.array(b[k])).max() / jnp.abs(jnp.array(b[k])).max()) for k in a)


def case(name, depth, biases):
    settings = {"activation": name, "depth": depth, "bias": BIASES[biases][0], "last_bias": BIASES[biases][1]}
    if name in CLOSED:
        return {**settings, **kernels(name, depth, *BIASES[biases])}
    coarse, fine = (kernels(name, depth, *BIASES[biases], nodes) for nodes in NODES)
    return {**settings, "doubt": difference(coarse, fine), **fine}


def main():
    cases = [case(name, depth, b) for name in CLOSED for depth in (1, 2, 3, 4) for b in BIASES]
    cases += [case(name, depth, b) for name in NUMERICAL for depth in (1, 3) for b in BIASES]
    cases += [case("relu", 0, b) for b in BIASES]
    rows = ",\n".join(json.dumps(c) for c in cases)
    text = f'{{"x1": {json.dumps(X1)},\n"x2": {json.dumps(X2)},\n"cases": [\n{rows}\n]}}\n'
    Path(__file__).with_name("neural_tangents_values.json").write_text(text)


if __name__ == "__main__":
    main()
