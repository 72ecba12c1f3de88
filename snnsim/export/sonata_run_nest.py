"""Run this SONATA folder with NEST: reads the files beside it, injects the spikes, writes the spikes that come out.

    python run_nest.py                                   # the folder's own inputs, results in output/
    python run_nest.py --output out --input a.h5 b.h5    # one run for each file of input spikes

Needs nest (3.10), h5py and numpy, and nothing else. A run is one sample from the zero state; results are
`spikes.h5` and `membrane.h5` (two or more inputs: `spikes_0.h5`, ...), in the SONATA layouts of spikes and of
membrane reports, with times in the network's own clock, ms: step k is the time k * dt.

How time is mapped. NEST's update that ends at (k + 1) * dt is step k, and a population whose node type has
`latency_steps` L lives L steps later: a delay of zero steps does not exist in NEST, so the exporter moved such
populations and lengthened the other delays into them. Before its first step a population has no drive. A node with
`i_start` begins with that synaptic current, which arrives as one spike.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import h5py
import nest
import numpy as np

MAGIC = 0x0A7A


def read_json(path: Path) -> Any:
    """Return a JSON file with the paths of its manifest put in."""
    value = json.loads(path.read_text(encoding="utf-8"))
    names = {key: str(path.parent) if text == "." else text for key, text in value.get("manifest", {}).items()}
    text = json.dumps(value)
    for _ in names:
        for key in sorted(names, key=len, reverse=True):
            text = text.replace(key, json.dumps(names[key])[1:-1])
    return json.loads(text)


def read_types(path: str, key: str) -> dict[int, dict[str, str]]:
    """Return the rows of a CSV of node or edge types by their number."""
    with open(path, newline="", encoding="utf-8") as file:
        return {int(row[key]): row for row in csv.DictReader(file, delimiter=" ")}


class Circuit:
    """The network of the folder: populations with their parameters, and edges."""

    def __init__(self, folder: Path) -> None:
        self.simulation = read_json(folder / "simulation_config.json")
        circuit = read_json(Path(self.simulation["network"]))
        models = Path(circuit["components"]["point_neuron_models_dir"])
        self.dt = float(self.simulation["run"]["dt"])
        self.sizes: dict[str, int] = {}
        self.rows: dict[str, dict[str, str]] = {}
        self.parameters: dict[str, dict[str, Any]] = {}
        self.start: dict[str, Any] = {}
        self.edges: list[tuple[str, str, Any, Any, Any, Any]] = []
        for entry in circuit["networks"]["nodes"]:
            types = read_types(entry["node_types_file"], "node_type_id")
            with h5py.File(entry["nodes_file"]) as file:
                for name, group in file["nodes"].items():
                    row = types[int(group["node_type_id"][0])]
                    self.sizes[name], self.rows[name] = len(group["node_type_id"]), row
                    if row["model_type"] == "virtual":
                        continue
                    values = json.loads((models / row["dynamics_params"]).read_text(encoding="utf-8"))
                    own = group["0"].get("dynamics_params", {})
                    self.parameters[name] = values | {key: own[key][:] for key in own}
                    if "i_start" in group["0"]:
                        self.start[name] = group["0/i_start"][:]
        for entry in circuit["networks"]["edges"]:
            with h5py.File(entry["edges_file"]) as file:
                for group in file["edges"].values():
                    ends = [group["source_node_id"], group["target_node_id"]]
                    names = [item.attrs["node_population"] for item in ends]
                    values = group["0"]
                    self.edges.append((*names, ends[0][:], ends[1][:], values["syn_weight"][:], values["delay"][:]))
        self.latency = {name: int(self.rows[name]["latency_steps"]) for name in self.parameters}
        self.latest = max(self.latency.values(), default=0)

    def run(self, spikes: Path, n_steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run one sample.

        Returns:
            For every population with a threshold the steps and nodes of its spikes, and for every other one its
            membrane potential, shape (time, node).
        """
        nest.ResetKernel()
        nest.set_verbosity("M_ERROR")
        nest.resolution = self.dt
        made: dict[str, Any] = {}
        for name, size in self.sizes.items():
            if name not in self.parameters:
                made[name] = nest.Create("spike_generator", size)
                continue
            values = {key: value for key, value in self.parameters[name].items() if key != "I_e"}
            model = self.rows[name]["model_template"].removeprefix("nest:")
            made[name] = nest.Create(model, size, {key: np.asarray(value).tolist() for key, value in values.items()})
            made[name].V_m = np.asarray(values["E_L"]).tolist()
        with h5py.File(spikes) as file:
            for name in self.sizes:
                if name not in self.parameters and name in file["spikes"]:
                    group = file["spikes"][name]
                    self.feed(made[name], np.rint(group["timestamps"][:] / self.dt), group["node_ids"][:])
        for source, target, sources, targets, weight, delay in self.edges:
            pairs = [
                ids.astype(np.int64) + made[name][0].global_id for name, ids in ((source, sources), (target, targets))
            ]
            if len(weight):
                nest.Connect(
                    *pairs, "one_to_one", {"weight": weight, "delay": delay, "synapse_model": "static_synapse"}
                )
        for name, value in self.start.items():
            nodes = np.flatnonzero(value)
            generator = nest.Create("spike_generator", {"spike_times": [(self.latency[name] - 1) * self.dt]})
            first = np.full(len(nodes), generator[0].global_id)
            synapses = {
                "weight": value[nodes],
                "delay": np.full(len(nodes), self.dt),
                "synapse_model": "static_synapse",
            }
            nest.Connect(first, nodes + made[name][0].global_id, "one_to_one", synapses)
        recorders, meters = {}, {}
        for name in self.parameters:
            if self.rows[name]["spiking"] == "1":
                recorders[name] = nest.Create("spike_recorder")
                nest.Connect(made[name], recorders[name], syn_spec={"delay": self.dt})
            else:
                meters[name] = nest.Create("multimeter", {"record_from": ["V_m"], "interval": self.dt})
                nest.Connect(meters[name], made[name], syn_spec={"delay": self.dt})
        now = 0
        for step in sorted(set(self.latency.values())):
            if step > now:
                nest.Simulate((step - now) * self.dt)
                now = step
            for name in self.parameters:
                if self.latency[name] == step:
                    made[name].I_e = np.asarray(self.parameters[name]["I_e"]).tolist()
        nest.Simulate((self.latest + n_steps + 2 - now) * self.dt)
        fired: dict[str, Any] = {}
        traces: dict[str, Any] = {}
        for name, recorder in recorders.items():
            steps, nodes = self.steps(recorder.events, name), np.asarray(recorder.events["senders"])
            inside = (steps >= 0) & (steps < n_steps)
            fired[name] = (steps[inside], nodes[inside].astype(np.int64) - made[name][0].global_id)
        for name, meter in meters.items():
            steps, nodes = self.steps(meter.events, name), np.asarray(meter.events["senders"])
            inside = (steps >= 0) & (steps < n_steps)
            trace = np.zeros((n_steps, self.sizes[name]))
            trace[steps[inside], nodes[inside] - made[name][0].global_id] = np.asarray(meter.events["V_m"])[inside]
            traces[name] = trace
        return fired, traces

    def feed(self, generators: Any, steps: Any, nodes: Any) -> None:
        """Give every generator its spikes; an event of step k leaves at the end of that step's update."""
        order = np.lexsort((steps, nodes))
        bounds = np.searchsorted(nodes[order], np.arange(len(generators) + 1))
        times = (steps[order] + 1) * self.dt
        for place, generator in enumerate(generators):
            if bounds[place + 1] > bounds[place]:
                generator.spike_times = times[bounds[place] : bounds[place + 1]].tolist()

    def steps(self, events: Any, name: str) -> Any:
        """Return the network's steps of what a population did."""
        return np.rint(np.asarray(events["times"]) / self.dt).astype(np.int64) - 1 - self.latency[name]


def write_spikes(path: Path, fired: dict[str, Any], dt: float) -> None:
    """Write a SONATA file of spikes, sorted by time."""
    with h5py.File(path, "w") as file:
        for name, (steps, nodes) in fired.items():
            order = np.lexsort((nodes, steps))
            group = file.create_group(f"spikes/{name}")
            kind = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="u1")
            group.attrs.create("sorting", 2, dtype=kind)
            group["timestamps"] = steps[order] * dt
            group["timestamps"].attrs["units"] = "ms"
            group["node_ids"] = nodes[order].astype(np.uint64)
        file.attrs["magic"] = np.uint32(MAGIC)
        file.attrs["version"] = np.array([0, 1], dtype=np.uint32)


def write_traces(path: Path, traces: dict[str, Any], dt: float) -> None:
    """Write a SONATA membrane report of all steps."""
    with h5py.File(path, "w") as file:
        for name, trace in traces.items():
            group = file.create_group(f"report/{name}")
            group["data"] = trace.astype(np.float32)  # the format's type
            group["data_float64"] = trace
            group["data"].attrs["units"] = "mV"
            size = trace.shape[1]
            group["mapping/node_ids"] = np.arange(size, dtype=np.uint64)
            group["mapping/index_pointers"] = np.arange(size + 1, dtype=np.uint64)
            group["mapping/element_ids"] = np.zeros(size, dtype=np.uint32)
            group["mapping/time"] = np.array([0.0, len(trace) * dt, dt])
            group["mapping/time"].attrs["units"] = "ms"
        file.attrs["magic"] = np.uint32(MAGIC)
        file.attrs["version"] = np.array([0, 1], dtype=np.uint32)


def main() -> None:
    """Read the command line, run every input."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Run this SONATA folder with NEST.")
    parser.add_argument("--input", nargs="+", type=Path, help="files of input spikes (default: the folder's own)")
    parser.add_argument("--output", type=Path, help="folder for the results (default: the configuration's)")
    parser.add_argument("--steps", type=int, help="steps of a run (default: the configuration's)")
    words = parser.parse_args()
    circuit = Circuit(folder)
    inputs = words.input or [Path(item["spike_file"]) for item in circuit.simulation["inputs"].values()]
    output = words.output or Path(circuit.simulation["output"]["output_dir"])
    n_steps = words.steps or round(circuit.simulation["run"]["tstop"] / circuit.dt)
    output.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(inputs):
        fired, traces = circuit.run(path, n_steps)
        suffix = f"_{number}" if len(inputs) > 1 else ""
        write_spikes(output / f"spikes{suffix}.h5", fired, circuit.dt)
        write_traces(output / f"membrane{suffix}.h5", traces, circuit.dt)
        counts = ", ".join(f"{name}: {len(steps)}" for name, (steps, _) in fired.items())
        print(f"{path.name}: spikes of {counts}")


if __name__ == "__main__":
    main()
