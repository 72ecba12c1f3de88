"""`snnsim prune`: remove synapses and neurons of a recurrent population."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnsim.cli.output import emit, note, plain
from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.network import Network

__all__ = ["prune"]


def prune(
    source: Annotated[Path, typer.Argument(metavar="NETWORK", help="Network file (.snn.h5) or run folder.")],
    method: Annotated[
        str, typer.Option("--method", help="How: lnp (Lyapunov noise pruning), activity, magnitude, random or neurons.")
    ] = "lnp",
    population: Annotated[
        str | None, typer.Option("--population", help="Pool to prune [default: the only one that reaches itself].")
    ] = None,
    keep: Annotated[
        float, typer.Option("--keep", help="Share of the pool's synapses that stay (lnp: after its first step).")
    ] = 0.5,
    keep_neurons: Annotated[float, typer.Option("--keep-neurons", help="Share of its neurons that stay.")] = 0.7,
    score: Annotated[
        str | None,
        typer.Option(
            "--score", help="lnp: noise, lyapunov_noise, magnitude or random decides on a synapse [default: noise]."
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="lnp: which steps are done, by commas [default: all four].")
    ] = None,
    protect_inputs: Annotated[
        bool, typer.Option("--protect-inputs/--no-protect-inputs", help="Keep neurons that receive input.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write the pruned network to this .snn.h5 file.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report of every step as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Prune a recurrent population once, without data or labels, and say what is left.

    The result is a network like any other: simulate it, export it, or thaw it and train on.
    """
    from snnsim.cli.simulate import open_network
    from snnsim.files import write_text
    from snnsim.pruning import METHODS

    if method not in METHODS:
        raise InputError(f"--method: expected one of {', '.join(sorted(METHODS))}, got {method!r}")
    given = {"score": score, "steps": steps}
    wrong = [name for name, value in given.items() if value is not None and method != "lnp"]
    if wrong:
        raise InputError(f"--{wrong[0]}: is of method lnp, {method} has none; leave it out")
    network, _ = open_network(source)
    name = population if population is not None else _only_pool(network)
    begin = time.perf_counter()
    note(f"pruning population {name!r} ...")
    options: dict[str, Any] = {"keep": keep, "keep_neurons": keep_neurons, "seed": seed}
    if score is not None:
        options["score"] = score
    if steps is not None:
        options["steps"] = [word.strip() for word in steps.split(",") if word.strip()]
    result = METHODS[method](network, name, **options, protect_inputs=protect_inputs)
    share = result.report["sparsity"]
    counts = share["counts"]
    lines = [
        f"population {name}: {counts['pool_neurons']} neurons, {counts['pool_synapses']} recurrent synapses are left",
        f"removed of the pool: {100 * share['pool']['synapses']:.1f} % of the synapses, "
        f"{100 * share['pool']['neurons']:.1f} % of the neurons",
        f"with its readers:    {100 * share['with_readout']['synapses']:.1f} % of the synapses, "
        f"{100 * share['with_readout']['neurons']:.1f} % of the neurons",
    ]
    files = []
    if out is not None:
        files.append(result.network.save(out))
    if report is not None:
        write_text(report, json_module.dumps(plain(result.report), indent=1) + "\n")
        files.append(report)
    lines += [f"wrote {path}" for path in files]
    values = {"files": files, "seconds": time.perf_counter() - begin, "report": result.report}
    emit(values, json, "\n".join(lines))


def _only_pool(network: Network) -> str:
    """Return the name of the only population that reaches itself."""
    found = sorted({item.source for item in network.projections if item.source == item.target})
    if len(found) != 1:
        raise InputError(
            f"--population: expected one population that reaches itself, the network has {found or 'none'}; name one"
            if found
            else "--population: no population of the network reaches itself; lnp prunes recurrent synapses"
        )
    return found[0]
