"""Xylo specifications (core v2): an npz file with the arrays that Rockpool's ``config_from_specification`` takes.

All populations but the one that is read are hidden neurons, one after the other; synapses between them are
``weights_rec``. The names of populations stand in the comment of the zip archive, where NumPy does not look: the file's
keys are exactly those of the specification.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.export import ExportReport
from snnsim.export.integer_meta import Meta, build, make_readout, pack_meta, to_integers, unpack_meta
from snnsim.files import atomic_path
from snnsim.guard import Parcel, run_guarded
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input, Network

__all__ = ["LIMITS", "parse_xylo", "read_xylo", "write_xylo"]

LIMITS = {"inputs": 16, "hidden": 1000, "outputs": 8}
HIDDEN_SPIKES, OUTPUT_SPIKES = 31, 1
KEYS = (
    *("weights_in", "weights_rec", "weights_out", "dash_mem", "dash_syn", "dash_syn_2", "dash_mem_out", "dash_syn_out"),
    *("threshold", "threshold_out", "bias", "bias_out", "weight_shift_in", "weight_shift_rec", "weight_shift_out"),
)
Array = npt.NDArray[Any]


def write_xylo(
    network: Network | IntegerNetwork,
    path: str | Path,
    *,
    scale: Literal["auto", "layer", "neuron"] = "auto",
    calibrate: Events | None = None,
) -> ExportReport:
    """Write a specification.

    Args:
        network: A frozen network of CubaLIF neurons without delays, quantised here with the profile ``xylo-audio2``,
            or an integer network of law ``xylo``.
        path: File to write, ``.npz``.
        scale: See :class:`snnsim.quantize.QuantizeOptions`.
        calibrate: Training events on which scales are chosen.

    Raises:
        InputError: The chip cannot hold the network; the sentence says what and what to do.
    """
    whole = to_integers(network, "xylo", "xylo-audio2", "refuse", scale, calibrate)
    spec, order = specification(whole)
    text = pack_meta(whole, order)
    changes = list(whole.changes)
    if len(text) >= 2**16:
        text = b""
        changes.append("The names and scales of the populations are too long for the file's comment and left out.")
    changes.append("16-bit sums are cut as the chip's simulator cuts them; keep the overflow counts of a run at 0.")
    with atomic_path(Path(path)) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **spec)  # type: ignore[arg-type]
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = text
    return ExportReport("xylo", Path(path), tuple(changes), {name: -steps for name, steps in whole.latency.items()})


def specification(whole: IntegerNetwork) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of the specification, and the populations in their order, the output last.

    Raises:
        InputError: The chip cannot hold the network.
    """
    if len(whole.inputs) != 1:
        raise InputError(f"xylo: expected one input, the network has {len(whole.inputs)}; join them into one")
    given = whole.inputs[0]
    sources = {item.source for item in whole.projections}
    ends = [item.name for item in whole.populations if item.name not in sources]
    if len(ends) != 1:
        raise InputError(f"xylo: expected one population that feeds no other, found {ends}; train one output layer")
    last = ends[0]
    hidden = [item for item in whole.populations if item.name != last]
    if not hidden:
        raise InputError(f"xylo: {last!r} is read from the input itself; the chip needs a hidden layer between")
    out = whole.population(last)
    counts = {"inputs": given.size, "hidden": sum(item.size for item in hidden), "outputs": out.size}
    for name, count in counts.items():
        if count > LIMITS[name]:
            raise InputError(f"xylo: {count} {name}, the chip has {LIMITS[name]}; pool channels or train a smaller net")
    for item in whole.populations:
        most = OUTPUT_SPIKES if item.name == last else HIDDEN_SPIKES
        if np.any(item.parameters["max_spikes"] != most):
            raise InputError(f"xylo: population {item.name!r}: max_spikes must be {most}, as on the chip")
    first = dict(zip((item.name for item in hidden), np.cumsum([0, *(item.size for item in hidden)]), strict=False))
    first[given.name] = first[last] = 0
    matrices = {
        "weights_in": np.zeros((given.size, counts["hidden"]), np.int64),
        "weights_rec": np.zeros((counts["hidden"], counts["hidden"]), np.int64),
        "weights_out": np.zeros((counts["hidden"], out.size), np.int64),
    }
    for projection in whole.projections:
        if projection.source == given.name and projection.target == last:
            raise InputError("xylo: the input feeds the output layer; the chip needs a hidden layer between")
        name = "weights_in" if projection.source == given.name else "weights_rec"
        name = "weights_out" if projection.target == last else name
        due = 0 if name == "weights_in" else 1
        if np.any(projection.delay != due):
            raise InputError(
                f"xylo: projection {projection.name!r}: delays of up to {projection.delay.max()} steps; the chip has "
                f"none (it takes {due} here): train without delays"
            )
        place = (projection.sources() + first[projection.source], projection.unit + first[projection.target])
        np.add.at(matrices[name], place, projection.weight)
    for name, matrix in matrices.items():
        if matrix.min(initial=0) < -128 or matrix.max(initial=0) > 127:
            raise InputError(f"xylo: {name}: parallel synapses add up to more than 8 bits; train one synapse a pair")

    def joined(name: str, items: list[IntegerPopulation], dtype: str) -> Array:
        return np.concatenate([item.parameters[name] for item in items]).astype(dtype)

    spec: dict[str, Array] = {name: matrix.astype(np.int8) for name, matrix in matrices.items()}
    for end, items in (("", hidden), ("_out", [out])):
        spec[f"dash_mem{end}"] = joined("dash_mem", items, "uint8")
        spec[f"dash_syn{end}"] = joined("dash_syn", items, "uint8")
        spec[f"threshold{end}"] = joined("v_threshold", items, "int16")
        spec[f"bias{end}"] = joined("bias", items, "int16")
    spec["dash_syn_2"] = np.ones_like(spec["dash_syn"])
    spec |= {name: np.array(0, np.int8) for name in ("weight_shift_in", "weight_shift_rec", "weight_shift_out")}
    return {name: spec[name] for name in KEYS}, [*(item.name for item in hidden), last]


def read_xylo(path: str | Path) -> IntegerNetwork:
    """Read a specification back; without names in the file there is one population ``hidden`` and one ``output``.

    Raises:
        SnnsimFileError: The file cannot be read, is damaged, or holds what the integer law has no place for
            (weight shifts, a second current in use, aliases).
    """
    path = Path(path).absolute()
    parcel = run_guarded("snnsim.export.xylo:parse_xylo", {"path": str(path)}, path=path)
    meta = unpack_meta(parcel.arrays[-1].astype(np.uint8).tobytes(), path)
    spec = dict(zip(KEYS, parcel.arrays[:-1], strict=True))
    return build(path, lambda: _network(path, spec, meta))


DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, SyntaxError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)
"""What zip archives and NumPy's array headers raise when they are damaged."""


def parse_xylo(path: str) -> Parcel:
    """Return the arrays of a specification in the order of ``KEYS``, and its comment (runs in the worker)."""
    try:
        with zipfile.ZipFile(path) as archive:
            comment = np.frombuffer(archive.comment, np.uint8)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in KEYS if name not in file.files]
            if missing:
                raise SnnsimFileError(path, missing[0], "missing; is this a specification of Xylo?")
            extra = [name for name in file.files if name not in KEYS]
            if extra:
                raise SnnsimFileError(path, extra[0], "is no key that is read")
            arrays = [np.asarray(file[name]) for name in KEYS]
    except SnnsimFileError:
        raise
    except DAMAGED as error:
        reason = f"cannot be read as a specification ({type(error).__name__}); get it again"
        raise SnnsimFileError(path, "", reason) from error
    for name, array in zip(KEYS, arrays, strict=True):
        if array.dtype.kind not in "iu":
            raise SnnsimFileError(path, name, f"expected whole numbers, found {array.dtype}")
    return Parcel(None, [*(array.astype(np.int64) for array in arrays), comment])


def _network(path: Path, spec: dict[str, Array], meta: Meta) -> IntegerNetwork:
    n_in, hidden, out = *spec["weights_in"].shape[:2], *spec["weights_out"].shape[1:2]
    shapes: dict[str, tuple[int, ...]] = {
        "weights_in": (n_in, hidden),
        "weights_rec": (hidden, hidden),
        "weights_out": (hidden, out),
        **dict.fromkeys(("dash_mem", "dash_syn", "dash_syn_2", "threshold", "bias"), (hidden,)),
        **dict.fromkeys(("dash_mem_out", "dash_syn_out", "threshold_out", "bias_out"), (out,)),
    }
    for name, array in spec.items():
        expected = shapes.get(name, ())
        if array.shape != expected:
            raise SnnsimFileError(path, name, f"expected shape {expected}, found {array.shape}")
        if name not in shapes and array != 0:
            raise SnnsimFileError(path, name, f"expected 0, found {array}: shifted weights are not read")
    sizes, names = list(meta.sizes) or [hidden, out], list(meta.names) or ["hidden", "output"]
    if len(sizes) < 2 or sum(sizes[:-1]) != hidden or sizes[-1] != out:
        raise SnnsimFileError(path, "snnsim", f"sizes {sizes} do not fit {hidden} hidden and {out} output neurons")
    edges = np.cumsum([0, *sizes[:-1]])
    parts = [(names[k], "", slice(edges[k], edges[k + 1])) for k in range(len(sizes) - 1)]
    parts.append((names[-1], "_out", slice(0, out)))
    populations, projections = [], []
    for name, end, part in parts:
        values = {key: spec[f"{key}{end}"][part] for key in ("dash_mem", "dash_syn", "bias")}
        values["v_threshold"] = spec[f"threshold{end}"][part]
        values["max_spikes"] = np.full(part.stop - part.start, OUTPUT_SPIKES if end else HIDDEN_SPIKES, np.int64)
        populations.append(IntegerPopulation(name, part.stop - part.start, "cubalif", values))
    hiddens = parts[:-1]
    blocks = [(meta.input, name, spec["weights_in"][:, part], 0) for name, _, part in hiddens]
    for source, _, rows in hiddens:
        blocks += [(source, name, spec["weights_rec"][rows, part], 1) for name, _, part in hiddens]
        blocks.append((source, names[-1], spec["weights_out"][rows], 1))
    for source, target, matrix, delay in blocks:
        row, unit = np.nonzero(matrix)
        if row.size:
            indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=matrix.shape[0]))))
            weight = matrix[row, unit]
            if np.abs(weight).max() > 128:
                raise SnnsimFileError(path, "weights", "expected 8 bits")
            steps = np.full(row.size, delay, np.int32)
            projections.append(
                IntegerProjection(source, target, indptr, unit.astype(np.int32), weight.astype(np.int32), steps)
            )
    return IntegerNetwork(
        law="xylo",
        populations=tuple(populations),
        projections=tuple(projections),
        inputs=(Input(meta.input, n_in),),
        readout=make_readout(meta),
        dt=meta.dt,
        scale=meta.scale,
        latency=meta.latency,
        source=meta.source,
    )
