"""Plain spiking networks in spyx (JAX): the whole step compiled, time scanned."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("spyx", "jax")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return one training step of a network, or one pass through a layer and back."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import spyx.axn
    import spyx.nn
    from flax import nnx

    sizes = task["sizes"]
    generator = np.random.default_rng(0)
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    x, labels = jnp.asarray(counts), jnp.asarray(generator.integers(0, sizes[-1], task["batch"]))
    rngs, surrogate = nnx.Rngs(0), spyx.axn.arctan(5.0)
    parts: list[Any] = []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        parts.append(nnx.Linear(n_in, n_out, use_bias=False, rngs=rngs))
        if index == len(sizes) - 2 and task["kind"] != "layer":
            parts.append(spyx.nn.LI((n_out,), beta=0.9, rngs=rngs))
            break
        cell = spyx.nn.RLIF if task["kind"] == "recurrent" else spyx.nn.LIF
        parts.append(cell((n_out,), beta=0.9, activation=surrogate, rngs=rngs))
    graph, parameters = nnx.split(spyx.nn.Sequential(*parts))
    optimiser = optax.adam(1e-3)
    memory = optimiser.init(parameters)

    def loss(weights: Any, inputs: Any) -> Any:
        trace, _ = spyx.nn.run(nnx.merge(graph, weights), inputs)
        if task["kind"] == "layer":
            return trace.sum()
        return optax.softmax_cross_entropy_with_integer_labels(trace.mean(axis=0), labels).mean()

    if task["kind"] == "layer":
        through = jax.jit(jax.value_and_grad(loss, argnums=0))
        return lambda: jax.block_until_ready(through(parameters, x))

    @jax.jit  # type: ignore[untyped-decorator]
    def update(weights: Any, memory: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(weights, x)
        change, memory = optimiser.update(gradient, memory, weights)
        return value, optax.apply_updates(weights, change), memory

    state = [parameters, memory]

    def train() -> object:
        value, *state[:] = update(*state)
        return float(value)

    return train
