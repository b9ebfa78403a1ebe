"""Makes neural_tangents_empirical.json: finite networks and their kernels by the reference implementation.

Not collected by pytest, and run by hand, in an environment of its own, since it needs old versions:

    python -m venv nt && nt/bin/pip install neural-tangents==0.6.5 "jax[cpu]==0.4.30" "numpy<2"
    nt/bin/python -W ignore tests/ntk/make_neural_tangents_empirical.py

Weights are written in torch's layout: (out, in) for a dense layer, (out, in, height, width) for a convolution.
Images are written (n, channels, height, width); the last dense layer of the convolutional network reads its pixels
(height, width, channels). All in float64.
"""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import neural_tangents as nt
from jax import random
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)

ERF_SCALE = (2 / math.pi * math.asin(2 / 3)) ** -0.5  # E[(scale erf(z))^2] = 1
OUTPUT = Path(__file__).with_name("neural_tangents_empirical.json")


def fully_connected():
    """NTK parametrisation: z = W x / sqrt(fan_in) + b_std b."""
    layers = []
    for _ in range(2):
        layers += [stax.Dense(4, 1.0, 0.3), stax.Erf(a=ERF_SCALE, b=1.0, c=0.0)]
    return stax.serial(*layers, stax.Dense(2, 1.0, 0.1)), (3,)


def convolutional():
    """Standard parametrisation: the weights as they are."""
    plain = {"parameterization": "standard"}
    return stax.serial(
        stax.Conv(3, (3, 3), padding="SAME", W_std=1.5, b_std=0.2, **plain),
        stax.Erf(a=1.0, b=1.0, c=0.0),
        stax.Conv(2, (2, 2), strides=(2, 2), padding="VALID", W_std=1.5, b_std=0.2, **plain),
        stax.Erf(a=1.0, b=1.0, c=0.0),
        stax.Flatten(),
        stax.Dense(2, 1.0, 0.1, **plain),
    ), (4, 4, 2)


def in_torch_layout(array):
    if array.size == array.shape[-1]:  # a bias
        return array.reshape(-1).tolist()
    return jnp.transpose(array, {4: (3, 2, 0, 1), 2: (1, 0)}[array.ndim]).tolist()


def described(network, seed):
    (init, apply, _), shape = network
    keys = random.split(random.PRNGKey(seed), 3)
    _, params = init(keys[0], (1, *shape))
    x1, x2 = (random.normal(key, (n, *shape), dtype=jnp.float64) for key, n in zip(keys[1:], (4, 3), strict=True))
    by = {
        way: nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=way)(x1, x2, params)
        for way in (nt.NtkImplementation.JACOBIAN_CONTRACTION, nt.NtkImplementation.NTK_VECTOR_PRODUCTS)
    }
    first, second = by.values()
    assert jnp.abs(first - second).max() < 1e-13 * jnp.abs(first).max()
    images = (lambda x: jnp.moveaxis(x, -1, 1)) if len(shape) == 3 else (lambda x: x)
    return {
        "weights": [in_torch_layout(p) for p in jax.tree_util.tree_leaves(params)],
        "x1": images(x1).tolist(),
        "x2": images(x2).tolist(),
        "outputs": apply(params, x1).tolist(),
        "kernel": first.tolist(),
    }


if __name__ == "__main__":
    networks = {"fully connected": fully_connected(), "convolutional": convolutional()}
    values = {name: described(network, seed) for seed, (name, network) in enumerate(networks.items())}
    versions = {"neural-tangents": nt.__version__, "jax": jax.__version__}
    OUTPUT.write_text(json.dumps({"made with": versions, **values}, separators=(",", ":")) + "\n")
