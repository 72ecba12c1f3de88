"""Read ``.net`` files of dense layers back as integer networks; the HDF5 library runs in the guarded worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import SnnsimFileError
from snnsim.export.integer_meta import Meta, build, make_readout, unpack_meta
from snnsim.export.lava import LONGEST, SILENT
from snnsim.guard import Parcel, run_guarded
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input

__all__ = ["parse_net", "read_lava"]

MAX_LAYERS = 1000
Array = npt.NDArray[Any]


def read_lava(path: str | Path) -> IntegerNetwork:
    """Read a ``.net`` file: dense layers of CUBA neurons that reset to zero, with or without delays and biases.

    A delay is the synapse's field plus one. ``delay`` may be one number, one a source, one a target or one a synapse;
    where a layer is square, a row of numbers counts as one a target, as in NumPy's broadcasting of the loader.

    Raises:
        SnnsimFileError: The file cannot be read, is damaged, or holds what the integer law has no place for.
    """
    path = Path(path).absolute()
    parcel = run_guarded("snnsim.export.lava_read:parse_net", {"path": str(path)}, path=path)
    meta = unpack_meta(parcel.arrays[0].astype(np.uint8).tobytes(), path)
    return build(path, lambda: _network(path, parcel.value, parcel.arrays[1:], meta))


def parse_net(path: str) -> Parcel:
    """Return the layers of a file (runs in the worker): numbers by layer, and weight, delay, bias of each."""
    import h5py

    def wrong(item: str, reason: str) -> SnnsimFileError:
        return SnnsimFileError(path, item, reason)

    try:
        with h5py.File(path, "r") as file:
            meta = file["snnsim"][()] if "snnsim" in file else np.zeros(0, np.uint8)
            if not isinstance(meta, np.ndarray) or meta.dtype != np.uint8 or meta.ndim != 1:
                raise wrong("snnsim", "expected text as bytes; the file is damaged")
            arrays: list[Array] = [meta]
            root = file.get("layer")
            if not isinstance(root, h5py.Group):
                raise wrong("layer", "expected a group of layers; is this a Lava .net file?")
            count = len(root)
            if not 2 <= count <= MAX_LAYERS:
                raise wrong("layer", f"expected 2 to {MAX_LAYERS} layers, found {count}")
            layers = [_parse_layer(root, number, arrays, wrong) for number in range(count)]
            return Parcel(layers, arrays)
    except SnnsimFileError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:  # how h5py says "damaged"
        raise wrong("", f"cannot be read as a .net file ({type(error).__name__}); get it again") from error


def _parse_layer(root: Any, number: int, arrays: list[Array], wrong: Any) -> dict[str, Any]:
    import h5py

    name = f"layer/{number}"
    group = root.get(str(number))
    if not isinstance(group, h5py.Group):
        raise wrong(name, "expected a group; layers are numbered from 0 without gaps")

    def text(where: Any, key: str) -> str:
        value = np.asarray(where[key][()]).reshape(-1) if key in where else np.zeros(0, "S1")
        if value.size != 1 or not isinstance(value[0], bytes):
            raise wrong(f"{name}/{key}", "expected one word")
        return bytes(value[0]).decode("ascii", "replace")

    def numbers(where: Any, key: str) -> Array:
        if key not in where or not isinstance(where[key], h5py.Dataset):
            raise wrong(f"{name}/{key}", "missing")
        value = np.asarray(where[key][()])
        whole = value.dtype.kind in "iub"
        if value.dtype.kind == "f":
            whole = bool(np.array_equal(value, np.rint(value)) and np.all(np.abs(value) <= 2**31))
        if not whole:
            raise wrong(f"{name}/{key}", f"expected whole numbers, found {value.dtype}")
        return value.astype(np.int64)

    def one(where: Any, key: str, default: int | None = None) -> int:
        if default is not None and key not in where:
            return default
        value = numbers(where, key)
        if value.size != 1:
            raise wrong(f"{name}/{key}", f"expected one number, found shape {value.shape}")
        return int(value.reshape(-1)[0])

    kind = text(group, "type")
    shape = numbers(group, "shape").reshape(-1)
    if shape.size < 1 or shape.min() < 1 or float(np.prod(shape.astype(np.float64))) > 2**31:
        raise wrong(f"{name}/shape", "expected positive sizes")
    found: dict[str, Any] = {"type": kind, "size": int(np.prod(shape))}
    if number == 0:
        if kind != "input":
            raise wrong(f"{name}/type", f"expected 'input' first, found {kind!r}")
        return found
    if kind != "dense":
        raise wrong(f"{name}/type", f"expected 'dense', found {kind!r}; only dense layers are read")
    neuron = group.get("neuron")
    if not isinstance(neuron, h5py.Group):
        raise wrong(f"{name}/neuron", "missing")
    if text(neuron, "type") not in ("CUBA", "LOIHI"):
        raise wrong(f"{name}/neuron/type", f"expected CUBA or LOIHI, found {text(neuron, 'type')!r}")
    if one(neuron, "gradedSpike", 0):
        raise wrong(f"{name}/neuron/gradedSpike", "graded spikes are not read")
    if one(neuron, "refDelay", 1) != 1:
        raise wrong(f"{name}/neuron/refDelay", "expected 1: the integer law has no refractory time")
    found |= {key: one(neuron, key) for key in ("iDecay", "vDecay", "vThMant")}
    weight = numbers(group, "weight")
    delay = numbers(group, "delay") if "delay" in group else np.zeros((), np.int64)
    bias = numbers(group, "bias") if "bias" in group else np.zeros(found["size"], np.int64)
    arrays += [weight, delay, bias]
    return found


def _network(path: Path, layers: list[dict[str, Any]], arrays: list[Array], meta: Meta) -> IntegerNetwork:
    names = list(meta.names) or [f"layer{number}" for number in range(1, len(layers))]
    if len(names) != len(layers) - 1:
        raise SnnsimFileError(path, "snnsim", f"names {len(names)} layers, the file has {len(layers) - 1}")
    populations, projections = [], []
    before, size = meta.input, layers[0]["size"]
    for number, (name, layer) in enumerate(zip(names, layers[1:], strict=True)):
        weight, delay, bias = arrays[3 * number : 3 * number + 3]
        where = f"layer/{number + 1}"
        shape = (layer["size"], size)
        if weight.shape != shape:
            raise SnnsimFileError(path, f"{where}/weight", f"expected shape {shape}, found {weight.shape}")
        if bias.reshape(-1).shape != (shape[0],):
            raise SnnsimFileError(path, f"{where}/bias", f"expected {shape[0]} numbers, found shape {bias.shape}")
        if delay.shape in ((shape[0],), (shape[0], 1)):
            delay = delay.reshape(-1, 1)
        elif delay.shape not in ((), (1,), (shape[1],), shape):
            raise SnnsimFileError(path, f"{where}/delay", f"expected shape {shape}, found {delay.shape}")
        if delay.size and (delay.min() < 0 or delay.max() > LONGEST):
            raise SnnsimFileError(
                path, f"{where}/delay", f"expected 0 to {LONGEST}, found {delay.min()}..{delay.max()}"
            )
        if np.any(np.abs(weight) > 256) or np.any(weight & 1):
            raise SnnsimFileError(path, f"{where}/weight", "expected even numbers from -256 to 254")
        current = layer["iDecay"] != 4096
        spiking = layer["vThMant"] != SILENT
        kind = ("cuba" if current else "") + ("lif" if spiking else "li")
        if meta.kinds:
            if meta.kinds[number].endswith("lif") != spiking or (current and not meta.kinds[number].startswith("cuba")):
                raise SnnsimFileError(path, "snnsim", f"{name} is no {meta.kinds[number]}")
            kind = meta.kinds[number]
        values = {"v_decay": layer["vDecay"], "i_decay": layer["iDecay"], "bias": bias.reshape(-1)}
        if spiking:
            values["v_threshold"] = layer["vThMant"]
        populations.append(IntegerPopulation(name, shape[0], kind, values))
        source, target = np.nonzero(weight.T)
        projections.append(
            IntegerProjection(
                before,
                name,
                np.concatenate(([0], np.cumsum(np.bincount(source, minlength=size)))),
                target.astype(np.int32),
                weight[target, source].astype(np.int32),
                (np.broadcast_to(delay, shape)[target, source] + 1).astype(np.int32),
            )
        )
        before, size = name, shape[0]
    return IntegerNetwork(
        law="loihi2",
        populations=tuple(populations),
        projections=tuple(projections),
        inputs=(Input(meta.input, layers[0]["size"]),),
        readout=make_readout(meta),
        dt=meta.dt,
        scale=meta.scale,
        latency=meta.latency,
        source=meta.source,
    )
