"""The compatibility table of NIR files, made by running every program that is installed.

    python -m snnsim.export.nir_table --out docs/nir-compatibility.md --python sinabs=PATH --python spyx=PATH

Every cell is a run: a small network is written, the program's own importer runs the file, every spike is compared.
Programs that need an environment of their own are run there with :mod:`snnsim.export.nir_worker`; one that is missing
is named as not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimError
from snnsim.export import nir_worker
from snnsim.export.nir import write_nir
from snnsim.export.nir_conventions import READERS, WRITERS, Convention
from snnsim.export.nir_fit import WRITTEN_FOR
from snnsim.export.nir_graph import Graph, write_graph
from snnsim.export.nir_judge import NirJudge
from snnsim.export.nir_peers import PeerJudge
from snnsim.export.nir_read import read_nir
from snnsim.export.proof import prove
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LI, LIF, CubaLIF, Neuron

__all__ = ["FEATURES", "OTHERS", "Cell", "WorkerJudge", "compatibility", "main", "page"]

DT = 1e-3
SIZES = (24, 48, 36)
OTHERS = ("sinabs", "spyx", "rockpool")
"""Programs that need an environment of their own."""


@dataclass(frozen=True)
class Cell:
    """The outcome of one run.

    Attributes:
        outcome: ``"equal"``, ``"differs"``, ``"refused"`` or ``"not run"``.
        text: What the table says.
    """

    outcome: str
    text: str


def _network(kind: str) -> Network:
    """Return a chain of two populations with one property."""
    rng = np.random.default_rng(7)
    scale, starts, delay = 1.0, (0, 0), (0.0, 0.0)

    def record(size: int) -> Neuron:
        drive = rng.normal(0.02, 0.05, size)
        if kind == "IF":
            return IF.from_step(dt=DT, drive_step=np.abs(drive), v_threshold=3.0)
        if kind == "CubaLIF":
            return CubaLIF.from_step(dt=DT, beta=0.8, alpha=0.6, drive_syn_step=drive)
        beta: Any = rng.uniform(0.5, 0.9, size) if kind == "time constants" else 0.8
        threshold: Any = rng.uniform(0.8, 1.3, size) if kind == "thresholds" else 1.1
        reset: Any = "subtract" if kind == "subtract" else "zero"
        return LIF.from_step(dt=DT, beta=beta, drive_step=drive, v_threshold=threshold, reset=reset)

    if kind == "CubaLIF":
        scale, starts = 3.0, (0, 1)
    if kind == "delay":
        delay = (0.002, 0.003)
    records = [record(size) for size in SIZES[1:]]
    names = ("entry", "first", "second")
    projections = [
        Projection(names[i], names[i + 1], rng.normal(0.1 * scale, 0.4 * scale, (SIZES[i + 1], SIZES[i])), delay[i])
        for i in range(2)
    ]
    populations = [
        Population(name, size, made, start_step=start)
        for name, size, made, start in zip(names[1:], SIZES[1:], records, starts, strict=True)
    ]
    if kind == "loop":
        projections.append(Projection("first", "first", rng.normal(0, 0.3, (SIZES[1], SIZES[1])), DT))
    if kind == "synapse delays":
        late = np.asarray(rng.integers(0, 8, (SIZES[1], SIZES[0])) * DT, dtype=np.float64)
        projections[0] = Projection("entry", "first", projections[0].weight, late)
    if kind == "readout":
        populations.append(Population("readout", 5, LI.from_step(dt=DT, beta=0.9)))
        projections.append(Projection("second", "readout", rng.normal(0, 1, (5, SIZES[2]))))
    return Network(tuple(populations), tuple(projections), (Input("entry", SIZES[0]),), readout=None, dt=DT)


FEATURES: dict[str, str] = {
    "LIF": "LIF",
    "IF": "IF",
    "CubaLIF": "CubaLIF",
    "time constants": "LIF, a time constant for every neuron",
    "thresholds": "LIF, a threshold for every neuron",
    "subtract": "LIF, reset by subtraction",
    "loop": "LIF, recurrent",
    "delay": "LIF, one delay a projection",
    "synapse delays": "LIF, one delay a synapse",
    "readout": "LIF and an LI readout",
}
"""What is tried, by key."""


def _run(reference: Network, judge: Any) -> Cell:
    try:
        proof = prove(reference, judge, n_samples=220, n_steps=60, mutate=False)
    except SnnsimError as error:
        return Cell("refused", f"does not run: {_short(error)}")
    if proof.equal:
        return Cell("equal", f"0 of {proof.compared:,} differ")
    return Cell("differs", f"**{proof.mismatches:,}** of {proof.compared:,} differ")


def _short(error: Exception) -> str:
    text = str(error).rpartition("refuses it: ")[2] or str(error)
    return text.replace("|", "/")[:150]


def _installed(program: str) -> str | None:
    try:
        return version(program)
    except PackageNotFoundError:
        return None


def compatibility(
    programs: Sequence[str] = (*WRITTEN_FOR, "nirtorch"), features: Sequence[str] = tuple(FEATURES)
) -> dict[str, dict[str, dict[str, Cell]]]:
    """Run the networks of :data:`FEATURES` in the programs of this environment.

    Args:
        programs: Of :data:`~snnsim.export.nir_fit.WRITTEN_FOR`, or ``"nirtorch"`` (the judge of a proof).
        features: Keys of :data:`FEATURES`.

    Returns:
        ``[file][feature][program]``, where file is ``"plain"`` (in the format's own terms; compared with the network
        that was written) or ``"written for"`` (compared with the network that the program makes of it).
    """
    table: dict[str, dict[str, dict[str, Cell]]] = {"plain": {}, "written for": {}}
    with TemporaryDirectory(prefix="snnsim-nir-") as folder:
        path = Path(folder) / "network.nir"
        for feature in features:
            network = _network(feature)
            row = table["plain"].setdefault(feature, {})
            write_nir(network, path)
            for program in programs:
                row[program] = _try(program, network, path)
            row = table["written for"].setdefault(feature, {})
            for program in programs:
                if program == "nirtorch":
                    continue
                try:
                    integrators: Any = "drop-with-report" if feature == "readout" else "error"
                    write_nir(network, path, reader=program, integrators=integrators)
                except InputError as error:
                    row[program] = Cell("refused", f"refused by us: {_short(error)}")
                    continue
                row[program] = _try(program, read_nir(path, reader=program), path)
    return table


def _try(program: str, reference: Network, path: Path) -> Cell:
    if _installed("nirtorch" if program == "nirtorch" else program) is None:
        return Cell("not run", "not installed")
    try:
        judge = NirJudge(path) if program == "nirtorch" else PeerJudge(path, program)
    except SnnsimError as error:
        return Cell("refused", f"refuses it: {_short(error)}")
    return _run(reference, judge)


# -- programs with an environment of their own ---------------------------------------------------------


class WorkerJudge:
    """A program that runs a file in another Python interpreter.

    Args:
        program: One of :data:`OTHERS`.
        python: Its interpreter.
        path: The file.
        dt: Time step in seconds.

    Raises:
        InputError: From :meth:`run`, with what the program says.
    """

    def __init__(self, program: str, python: str, path: Path, dt: float) -> None:
        self.program, self.python, self.path, self.dt = program, python, path, dt
        self.name, self.latency = program, dict[str, int]()

    def run(self, inputs: npt.NDArray[np.float64]) -> Mapping[str, Any]:
        """Run counts (time, batch, unit)."""
        with TemporaryDirectory(prefix="snnsim-nir-") as folder:
            source, target = Path(folder) / "in.npy", Path(folder) / "out.npz"
            np.save(source, inputs)
            words = [self.program, str(self.path), str(source), str(target), str(self.dt)]
            try:
                subprocess.run([self.python, "-P", nir_worker.__file__, *words], check=True, capture_output=True)
                with np.load(target) as found:
                    values = {name: found[name] for name in found.files}
            except (OSError, subprocess.CalledProcessError) as error:
                raise InputError(f"{self.program}: {self.python} cannot run it: {error}") from error
        if "version" in values:
            self.name = f"{self.program} {values.pop('version')}"
        if "error" in values:
            raise InputError(f"{self.name} refuses it: {values['error']}")
        return {name.removeprefix("spikes/"): value for name, value in values.items()}


def _foreign(kind: str, convention: Convention, layers: int) -> Graph:
    """Return a chain in a program's own units, non-negative weights small enough for one spike a step."""
    rng, graph = np.random.default_rng(3), Graph()
    sizes = SIZES[: layers + 1]
    graph.add("entry", "Input", shape=np.array([sizes[0]]))
    last = "entry"
    tau = 5.0 if convention.tau_unit == "steps" else 5 * DT
    for number, (n, m) in enumerate(pairwise(sizes)):
        ones, name = np.ones(m), ("first", "second")[number]
        # single precision throughout: what the program keeps is what the file says
        strength = 0.08 if convention.tau_unit == "s" else 0.045 if kind == "LIF" else 0.02
        weight = np.abs(rng.normal(0.0, strength, (m, n))).astype(np.float32)
        bias = (0.01 * ones).astype(np.float32)
        values: dict[str, Any] = {"v_threshold": ones, "v_leak": 0 * ones, "r": ones}
        if kind == "IF":
            values.pop("v_leak")
        elif kind == "LIF":
            values |= {"tau": tau * ones}
        else:
            values |= {"tau_mem": tau * ones, "tau_syn": tau / 2 * ones, "w_in": ones}
            values["r"] = tau / DT * ones
            weight *= 0.3
        affine = graph.add(f"w{number}", "Affine", weight=weight, bias=bias)
        cell = graph.add(name, kind, **values)
        graph.connect(last, affine, cell)
        last = cell
    graph.add("exit", "Output", shape=np.array([sizes[-1]]))
    graph.connect(last, "exit")
    return graph


def other_programs(pythons: Mapping[str, str], kinds: Sequence[str] = ("LIF", "IF", "CubaLIF")) -> dict[str, Any]:
    """Run files in the programs of :data:`OTHERS`.

    Args:
        pythons: Interpreter by program.
        kinds: Neurons.

    Returns:
        ``[program][kind]``: a :class:`Cell`; and ``[program]["version"]``.
    """
    found: dict[str, Any] = {}
    for program in OTHERS:
        row: dict[str, Any] = found.setdefault(program, {"version": "not run"})
        for kind in kinds:
            if program not in pythons:
                row[kind] = Cell("not run", "not run: no environment given")
                continue
            row[kind], name = _other(program, kind, pythons[program])
            row["version"] = name
    return found


def _other(program: str, kind: str, python: str) -> tuple[Cell, str]:
    from snnsim.engines import simulate
    from snnsim.events import bin_events
    from snnsim.export.proof import _events

    convention = READERS.get(program)
    dt = 1.0 if convention is not None and convention.tau_unit == "steps" else DT
    rng = np.random.default_rng(5)
    counts = (rng.random((100, 280, SIZES[0])) < 0.15).astype(np.uint8)
    with TemporaryDirectory(prefix="snnsim-nir-") as folder:
        path = Path(folder) / "network.nir"
        write_graph(path, _foreign(kind, convention or Convention("Rockpool"), 2))
        judge = WorkerJudge(program, python, path, dt)
        try:
            theirs = judge.run(counts.astype(np.float64))
        except InputError as error:
            return Cell("refused", f"refuses it: {_short(error)}"), judge.name
        if convention is None:
            spikes = ", ".join(f"{name} {int(value.sum())}" for name, value in theirs.items())
            return Cell("not run", f"runs it ({spikes} spikes); no convention recorded, not compared"), judge.name
        try:
            network = read_nir(path, dt, reader=program)
        except InputError as error:
            return Cell("refused", f"refused by us: {_short(error)}"), judge.name
        events = _events(counts, SIZES[0], dt)
        result = simulate(network, events, n_steps=counts.shape[0])
    differing = compared = spikes_there = several = 0
    for name, value in theirs.items():
        late = int(network.notes["latency_steps"].get(name, 0))  # currents act one step later here
        ours = np.asarray(bin_events(result.spikes[name], dt, counts.shape[0]))
        differing += int((ours[late:] != value[: len(value) - late]).sum() + ours[:late].sum())
        compared += value[: len(value) - late].size
        spikes_there += int(value.sum())
        several += int((value > 1).sum())
    text = f"{differing:,} of {compared:,} differ ({spikes_there:,} spikes"
    text += f", {several:,} with more than one in a step)" if several else ")"
    return Cell("equal" if not differing else "differs", text), judge.name


# -- the page ------------------------------------------------------------------------------------------


def page(table: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Return the table as a page of documentation."""
    programs = ["spikingjelly", "snntorch", "norse", "nirtorch"]
    titles = {name: READERS[name].program if name in READERS else name for name in (*programs, *OTHERS)}
    titles |= {"nirtorch": "nirtorch (the judge)", "rockpool": "Rockpool"}
    known = ", ".join(f"{name} {_installed(name) or 'not installed'}" for name in ("nir", *programs))
    lines = [
        "# NIR: who runs what",
        "",
        "Made by `make nir-table`, which runs every program that is installed: a network of 24, 48 and 36 units is",
        "written, the program's own importer runs the file in float64, and every spike of every population is compared",
        f"with the clock engine's, at least a million neuron-steps a cell. Versions: {known}.",
        "[export.md](export.md#nir) says what the conventions are.",
        "",
        "## Files in the format's own terms",
        "",
        "`snnsim export --target nir`, compared with the network that was written. A program that fires only above its",
        "threshold can be equal here, as the weights are not on a lattice; one that rounds to float32, by luck.",
        "",
    ]
    lines += _rows(table["plain"], programs, titles)
    lines += [
        "",
        "## Files written for one program",
        "",
        "`snnsim export --target nir --for PROGRAM`, compared with `read_nir(path, reader=PROGRAM)`, the network that",
        "the program makes of it. Refusals come before anything is written. An LI readout is left out",
        "(`--drop-integrators`).",
        "",
    ]
    lines += _rows(table["written for"], programs[:3], titles)
    lines += [
        "",
        "## Programs with an environment of their own",
        "",
        "Two layers in the program's own units, compared with `read_nir(path, dt, reader=PROGRAM)`; Spyx: the last.",
        "",
        "| program | LIF | IF | CubaLIF |",
        "|---|---|---|---|",
    ]
    for name, row in others.items():
        label = titles[name] if row["version"] == "not run" else f"{titles[name]} {row['version'].split()[-1]}"
        lines.append(f"| {label} | " + " | ".join(row[kind].text for kind in ("LIF", "IF", "CubaLIF")) + " |")
    lines += ["", "## Conventions", "", *_conventions()]
    return "\n".join(lines) + "\n"


def _rows(table: Mapping[str, Mapping[str, Cell]], programs: list[str], titles: Mapping[str, str]) -> list[str]:
    lines = ["| network | " + " | ".join(titles[name] for name in programs) + " |", "|---|" + "---|" * len(programs)]
    for feature, row in table.items():
        lines.append(f"| {FEATURES[feature]} | " + " | ".join(row[name].text for name in programs) + " |")
    return lines


def _conventions() -> list[str]:
    lines = [
        "| program | as | decay | tau in | input gain LIF / IF / current | fires at | reset | dt | late by | kept in |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for role, table in (("reader", READERS), ("writer", WRITERS)):
        for c in table.values():
            dt = f"{c.dt:g} s, fixed" if c.dt else f"{c.default_dt:g} s by default" if c.default_dt else "steps"
            gains = f"`{c.gain}` / `{c.if_gain}` / `{c.current_gain}`"
            sign, kept = ">" if c.strict else ">=", "float32" if c.narrow else "as given"
            lines.append(
                f"| {c.program} {c.version} | {role} | {c.decay} | {c.tau_unit} | {gains} | `{sign}` | {c.reset} "
                f"| {dt} | {c.late} | {kept} |"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page (see the head of this module)."""
    parser = argparse.ArgumentParser(
        prog="python -m snnsim.export.nir_table", description="Compatibility of NIR files."
    )
    parser.add_argument("--out", type=Path, default=Path("docs/nir-compatibility.md"), help="page to write")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PROGRAM=PATH", help="interpreter of a program"
    )
    options = parser.parse_args(arguments)
    pythons = dict(item.split("=", 1) for item in options.python if "=" in item)
    unknown = sorted(set(pythons) - set(OTHERS))
    if unknown or len(pythons) < len(options.python):
        parser.error(f"--python: expected PROGRAM=PATH for one of {', '.join(OTHERS)}")
    text = page(compatibility(), other_programs(pythons))
    options.out.write_text(text, encoding="utf-8")
    print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
