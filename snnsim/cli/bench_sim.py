"""`snnsim bench sim` and `snnsim bench scaling`: simulation beside other simulators."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from snnsim.cli.bench_options import Json, Names, Pythons, Rounds, interpreters
from snnsim.cli.output import emit, note

__all__ = ["scaling", "simulation"]

Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of every side.")]


def simulation(
    names: Names = None,
    rounds: Rounds = 5,
    threads: Threads = 1,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time the simulation of networks of the literature beside NEST and Brian2, in turn; what is missing is named."""
    import platform

    from snnsim.bench.pairs import compare
    from snnsim.bench.roofline import measure_roofline
    from snnsim.bench.sim_floor import measure_limits
    from snnsim.bench.sim_table import format_simulation, simulation_to_json
    from snnsim.bench.sim_tasks import choose_sim_tasks

    begin = time.perf_counter()
    tasks = choose_sim_tasks(names or [])
    elsewhere = interpreters(pythons, (peer for task in tasks for peer in task.peers))
    roof = measure_roofline(threads)
    machine = f"{platform.machine()}, {threads} threads"
    if not json:
        ceilings = (
            f"copies {roof.copy_bytes / 1e9:.0f} GB/s, {roof.random_adds / 1e6:.0f} M additions/s at random places"
        )
        print(f"{machine}: {ceilings} of a large array", flush=True)
    done = []
    for task in tasks:
        missing = task.unavailable()
        if missing:
            done.append({"task": task.name, "missing": missing})
            if not json:
                print(f"{task.name}: {task.summary}; not measured: {missing}", flush=True)
            continue
        limits = measure_limits(task, threads)
        comparison = compare(task, rounds=rounds, threads=threads, pythons=elsewhere, tell=note)
        limits = limits.or_better(measure_limits(task, threads))
        done.append(simulation_to_json(comparison, limits))
        if not json:
            print(format_simulation(comparison, limits), flush=True)
    result = {
        "seconds": time.perf_counter() - begin,
        "machine": machine,
        "threads": threads,
        "roofline": {"copy_bytes": roof.copy_bytes, "random_adds": roof.random_adds},
        "comparisons": done,
    }
    if json:
        emit(result, json, "")


def scaling(
    along: Annotated[
        Literal["neurons", "synapses", "rate", "threads"] | None,
        typer.Argument(help="Along what; all four by default."),
    ] = None,
    largest: Annotated[
        float | None, typer.Option("--largest", min=1, help="Largest value along the curve; by default a small one.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of every side; the median counts.")] = 3,
    threads: Threads = 1,
    peers: Annotated[bool, typer.Option("--peers", help="Also NEST, in turn.")] = False,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time random networks of growing size, in-degree, rate or number of threads: where a simulator slows down."""
    from snnsim.bench.sim_scaling import CURVES, format_curve, measure_curve
    from snnsim.errors import InputError

    begin = time.perf_counter()
    if largest is not None and along is None:
        raise InputError("--largest: along what? name one of neurons, synapses, rate or threads")
    elsewhere = interpreters(pythons, ("nest",) if peers else ())
    curves = []
    for name in [along] if along else list(CURVES):
        curve = measure_curve(
            name, largest=largest, rounds=rounds, threads=threads, peers=peers, pythons=elsewhere, tell=note
        )
        curves.append(curve.to_json())
        if not json:
            print(format_curve(curve), flush=True)
    result = {"seconds": time.perf_counter() - begin, "threads": threads, "curves": curves}
    if json:
        emit(result, json, "")
