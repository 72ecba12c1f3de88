"""`snnsim inspect`: what a network, a run or a data file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.output import emit

if TYPE_CHECKING:
    from snnsim.network import Network, Projection
    from snnsim.neurons import Neuron

__all__ = ["describe_network", "inspect"]


def inspect(
    source: Annotated[Path, typer.Argument(metavar="NETWORK_OR_RUN", help="Network file, run folder or data set.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a network, a run or a data file holds: populations, projections, delays, size, notes."""
    from snnsim.cli.simulate import open_network

    if _is_data(source):
        from snnsim.cli.data import info

        info(str(source), json)
        return
    network, run = open_network(source)
    values, lines = describe_network(network)
    if run is not None:
        manifest, result = run.manifest(), run.result()
        values["run"] = {"manifest": manifest, "result": result}
        data = manifest.get("data")
        name = data.get("name") if isinstance(data, dict) else data
        lines.insert(0, f"run {source}: recipe {run.recipe().name!r}, seed {manifest.get('seed')}, data {name!r}")
        lines.insert(1, "finished" if result is not None else f"stopped after {len(run.metrics())} epochs")
    emit(values, json, "\n".join(lines))


def _is_data(source: Path) -> bool:
    """Whether ``source`` is neither a run folder nor a sealed network file."""
    if source.is_dir():
        return not (source / "manifest.json").is_file()
    if not source.is_file():
        return not source.name.endswith(".snn.h5") and len(source.parts) == 1 and not source.suffix
    with open(source, "rb") as stream:
        return stream.read(6) != b"snnsim" and not source.name.endswith(".snn.h5")


def _span(value: Any, scale: float = 1.0) -> str:
    """Return a number, or the range of an array."""
    import numpy as np

    array = np.asarray(value, dtype=np.float64) * scale
    low, high = float(array.min()), float(array.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _law(neuron: Neuron) -> str:
    """Return the parameters that matter in one line."""
    parameters = neuron.parameters()
    parts = []
    for name in ("tau_mem", "tau_syn", "tau_exc", "tau_inh", "tau_adapt", "tau_w", "t_ref"):
        if name in parameters and not (name == "t_ref" and _span(parameters[name]) == "0"):
            parts.append(f"{name} {_span(parameters[name], 1e3)} ms")
    if neuron.spiking:
        sign = ">" if parameters.get("strict") else ">="
        low = next((parameters[name] for name in ("v_reset", "c") if name in parameters), 0.0)
        threshold = next(parameters[name] for name in ("v_peak", "v_threshold") if name in parameters)
        parts.append(f"v {sign} {_span(threshold)}")
        if parameters.get("reset", "zero") == "zero":
            parts.append(f"reset to {_span(low)}")
        else:
            amount = parameters["reset_amount"]
            parts.append(f"minus {_span(parameters['v_threshold'] if amount is None else amount)}")
    for name in ("adapt_v", "adapt_spike", "adapt_threshold"):
        if name in parameters and _span(parameters[name]) != "0":
            parts.append(f"{name} {_span(parameters[name])}")
    for name in ("e_exc", "e_inh", "v_t", "slope", "a", "b", "d"):
        if name in parameters:
            parts.append(f"{name} {_span(parameters[name])}")
    for name in ("release", "amplitude", "temperature"):
        if name in parameters:
            parts.append(f"{name} {_span(parameters[name])}")
    if "mode" in parameters:
        parts.append(f"mode {parameters['mode']}")
    if neuron.dt is not None:
        parts.append(f"numbers per step of {neuron.dt:g} s")
    return ", ".join(parts)


def _projection(projection: Projection, dt: float) -> dict[str, Any]:
    """Measure one projection."""

    from snnsim.network import Sparse

    synapses = projection.synapses(dt)
    weight, delay = synapses.weight, synapses.delay_steps
    shape = projection.delay_shape
    per = {(): "projection", (1, 1): "projection", (1, projection.shape[1]): "source"}.get(shape)
    if per is None:
        per = "target" if shape == (projection.shape[0], 1) else "synapse"
    some = bool(weight.shape[0])
    return {
        "name": projection.name,
        "shape": list(projection.shape),
        "form": "sparse" if isinstance(projection.weight, Sparse) else "dense",
        "synapses": int(weight.shape[0]),
        "weight_mean": float(weight.mean()) if some else None,
        "weight_std": float(weight.std()) if some else None,
        "weight_min": float(weight.min()) if some else None,
        "weight_max": float(weight.max()) if some else None,
        "delay_per": per,
        "delay_steps_min": int(delay.min()) if some else None,
        "delay_steps_mean": float(delay.mean()) if some else None,
        "delay_steps_max": int(delay.max()) if some else None,
    }


def describe_network(network: Network) -> tuple[dict[str, Any], list[str]]:
    """Return what ``snnsim inspect`` says of a network: values by name, and lines of text."""
    from dataclasses import asdict

    from snnsim.metrics import footprint

    size = footprint(network)
    lines = [f"network {network.digest()[:16]}, dt {network.dt:g} s"]
    lines += [f"input       {item.name}  {item.size} units" for item in network.inputs]
    populations = []
    for item in network.order():
        window = ""
        if item.start_step or item.stop_step is not None:
            window = f", steps {item.start_step} to {'the end' if item.stop_step is None else item.stop_step - 1}"
        law = _law(item.neuron)
        lines.append(f"population  {item.name}  {item.size} {item.neuron.kind}: {law}{window}")
        populations.append(
            {
                "name": item.name,
                "size": item.size,
                "neuron": item.neuron.kind,
                "law": law,
                "start_step": item.start_step,
                "stop_step": item.stop_step,
            }
        )
    projections = [_projection(item, network.dt) for item in network.projections]
    for measured in projections:
        text = f"projection  {measured['name']}  {measured['form']} {measured['shape'][0]} x {measured['shape'][1]}"
        text += f", {measured['synapses']} synapses"
        if measured["synapses"]:
            low, high, mean = (measured[f"delay_steps_{name}"] for name in ("min", "max", "mean"))
            text += f", weight {measured['weight_mean']:.3g} +- {measured['weight_std']:.3g}"
            text += f", delay {low} to {high} steps (mean {mean:.1f}), one a {measured['delay_per']}"
        lines.append(text)
    readout = network.readout
    if readout is not None:
        skipped = f", first {readout.skip_steps} steps left out" if readout.skip_steps else ""
        lines.append(f"readout     {readout.reduce} of {readout.population}.{readout.variable}{skipped}")
    lines.append(
        f"size        {size.neurons} neurons, {size.synapses} synapses ({size.delayed_synapses} delayed, longest "
        f"{size.max_delay_steps} steps), {100 * size.connection_sparsity:.1f} % of weights absent, "
        f"{size.bytes / 1e6:.2f} MB"
    )
    for key, value in network.notes.items():
        for text in value if isinstance(value, list) and all(isinstance(item, str) for item in value) else [value]:
            shown = str(text)
            lines.append(f"note        {key}: {shown if len(shown) <= 200 else shown[:197] + '...'}")
    values = {
        "digest": network.digest(),
        "dt": network.dt,
        "inputs": {item.name: item.size for item in network.inputs},
        "populations": populations,
        "projections": projections,
        "readout": None if readout is None else asdict(readout),
        "footprint": asdict(size),
        "notes": network.notes,
    }
    return values, lines
