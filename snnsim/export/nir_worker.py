"""Run a NIR file with Sinabs, Spyx or Rockpool, in an environment of their own; a script that needs no snnsim.

    python -P nir_worker.py PROGRAM FILE.nir INPUT.npy OUTPUT.npz DT

These programs want other releases of the nir package or of torch than the rest. The input is counts
(time, batch, unit); the output holds what every neuron node gave, (time, batch, unit), by the name of the node, or a
sentence under ``error``.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

__all__ = ["main"]


def run_sinabs(path: str, inputs: Any, dt: float) -> dict[str, Any]:
    """Run a file with Sinabs; time constants are counted in steps there, ``dt`` is not used."""
    import nir
    import sinabs.nir
    import torch

    del dt
    n_steps, batch, _ = inputs.shape
    graph = nir.read(path)
    cells = [name for name, node in graph.nodes.items() if type(node).__name__ in ("LIF", "IF", "LI", "CubaLIF")]
    program = sinabs.nir.from_nir(graph, batch_size=batch, num_timesteps=n_steps).double()
    found: dict[str, Any] = {}
    for part in program.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_pre_hook(lambda module, arguments: (arguments[0].double(),))
    for name in cells:

        def keep(module: Any, arguments: Any, result: Any, name: str = name) -> None:
            values = result[0] if isinstance(result, tuple) else result
            found[name] = values.detach().double().numpy().reshape(batch, n_steps, -1).swapaxes(0, 1)

        program.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        program(torch.from_numpy(np.ascontiguousarray(inputs.swapaxes(0, 1).reshape(batch * n_steps, -1))))
    return found


def run_spyx(path: str, inputs: Any, dt: float) -> dict[str, Any]:
    """Run a file with Spyx, which gives the spikes of the last layer only."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import nir
    import spyx.nir

    graph = nir.read(path)
    entry = next(name for name, node in graph.nodes.items() if type(node).__name__ == "Input")
    names = {entry: "input", next(n for n, node in graph.nodes.items() if type(node).__name__ == "Output"): "output"}
    graph.edges = [(names.get(a, a), names.get(b, b)) for a, b in graph.edges]  # it looks for these two names
    graph.nodes = {names.get(name, name): node for name, node in graph.nodes.items()}
    last = [name for name, node in graph.nodes.items() if type(node).__name__ in ("LIF", "IF", "CubaLIF")][-1]
    _, outputs = spyx.nir.from_nir(graph, jnp.asarray(inputs), dt=dt)
    values = np.asarray(outputs, dtype=np.float64)
    if values.shape[:2] != inputs.shape[:2]:
        raise ValueError(f"gave shape {values.shape}")
    return {last: values}


def run_rockpool(path: str, inputs: Any, dt: float) -> dict[str, Any]:
    """Run a file with Rockpool, step by step."""
    import nir
    import torch
    from rockpool.nn.modules.torch.nir import from_nir

    del dt
    graph = nir.read(path)
    cells = [name for name, node in graph.nodes.items() if type(node).__name__ in ("LIF", "CubaLIF")]
    program = from_nir(graph)
    found: dict[str, list[Any]] = {name: [] for name in cells}
    for name in cells:

        def keep(module: Any, arguments: Any, result: Any, name: str = name) -> None:
            values = result[0] if isinstance(result, tuple) else result
            found[name].append(values.detach().double().numpy()[:, 0])

        program.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        state = None
        for step in torch.from_numpy(inputs.astype(np.float32)):
            _, state = program(step[:, None], state)
    return {name: np.stack(steps) for name, steps in found.items()}


PROGRAMS = {"sinabs": run_sinabs, "spyx": run_spyx, "rockpool": run_rockpool}


def main(arguments: list[str]) -> None:
    """Run one file (see the head of this module)."""
    program, path, source, target, dt = arguments
    warnings.simplefilter("ignore")
    values: dict[str, Any] = {}
    try:
        values["version"] = np.array(version(program))
        values |= {f"spikes/{k}": v for k, v in PROGRAMS[program](path, np.load(source), float(dt)).items()}
    except Exception as error:  # whatever another program raises is its answer
        values["error"] = np.array(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    np.savez(target, **values)


if __name__ == "__main__":
    main(sys.argv[1:])
