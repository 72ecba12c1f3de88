"""LIF networks in Spyx on the device that JAX has, as ``on_device.py`` has them of libraries in torch.

JAX gives the gradient together with the value, so the backward pass of one Linear and LIF is what both take without
what the forward pass takes alone. All steps of a part have ended when its time is taken.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

BETA = 0.9


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("spyx", "jax")}


def wait() -> None:
    """Wait for nothing: every part waits for its own results."""


def peak() -> int:
    """Return the most memory that JAX has had in use so far; it never forgets."""
    import jax

    facts = jax.local_devices()[0].memory_stats() or {}
    return int(facts.get("peak_bytes_in_use", 0))


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Return a training step of a network, or forward and both passes of one Linear and LIF."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import spyx.axn
    import spyx.nn
    from flax import nnx

    wanted = "gpu" if task["device"] == "cuda" else "cpu"
    if jax.default_backend() != wanted:
        raise RuntimeError(f"JAX has no {wanted} here")
    jax.config.update("jax_default_matmul_precision", "highest")
    sizes, single = task["sizes"], task["kind"] == "linear"
    generator = np.random.default_rng(0)
    shape = (task["n_steps"], task["batch"], sizes[0])
    made = generator.poisson(task["rate"], shape) if task["rate"] else generator.standard_normal(shape)
    x = jnp.asarray(made.astype(np.float32))
    rngs, surrogate = nnx.Rngs(0), spyx.axn.arctan(5.0)
    parts: list[Any] = []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        parts.append(nnx.Linear(n_in, n_out, use_bias=single, rngs=rngs))
        if index == len(sizes) - 2 and not single:
            parts.append(spyx.nn.LI((n_out,), beta=BETA, rngs=rngs))
        else:
            parts.append(spyx.nn.LIF((n_out,), beta=BETA, activation=surrogate, rngs=rngs))
    graph, parameters = nnx.split(spyx.nn.Sequential(*parts))

    def trace(weights: Any, inputs: Any) -> Any:
        return spyx.nn.run(nnx.merge(graph, weights), inputs)[0]

    if single:
        forward = jax.jit(trace)
        through = jax.jit(jax.grad(lambda weights, inputs: trace(weights, inputs).sum()))
        return {
            "parts": {
                "forward": lambda: jax.block_until_ready(forward(parameters, x)),
                "both": lambda: jax.block_until_ready(through(parameters, x)),
            }
        }
    labels = jnp.asarray(generator.integers(0, sizes[-1], task["batch"]))
    optimiser = optax.adam(1e-3)

    def loss(weights: Any) -> Any:
        scores = trace(weights, x).mean(axis=0)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @jax.jit  # type: ignore[untyped-decorator]
    def update(weights: Any, memory: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(weights)
        change, memory = optimiser.update(gradient, memory, weights)
        return value, optax.apply_updates(weights, change), memory

    state = [parameters, optimiser.init(parameters)]

    def train() -> object:
        value, *state[:] = update(*state)
        return jax.block_until_ready(value)

    return {"parts": {"step": train}}
