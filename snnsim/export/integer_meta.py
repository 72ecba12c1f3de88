"""What a chip's file has no field for: names, readout, scales and latencies of an integer network, as JSON text.

Exporters put it where the target's own loader does not look, readers check every word of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from snnsim.errors import InputError, SnnsimFileError
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Network, Readout

__all__ = ["Meta", "build", "make_readout", "pack_meta", "to_integers", "unpack_meta"]

T = TypeVar("T")
MAX_TEXT = 2**24


@dataclass(frozen=True)
class Meta:
    """Names and readout of the layers of a file, in its order.

    Attributes:
        input: Name of the input.
        names: Names of the populations.
        kinds: Their kinds, or empty where the file says them itself.
        sizes: Their sizes, or empty.
        dt: Seconds a step.
        readout: Arguments of the readout, or None.
        scale: By population.
        latency: By population.
        source: Digest of the float network, or empty.
    """

    input: str = "input"
    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    dt: float = 0.001
    readout: dict[str, Any] | None = None
    scale: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, int] = field(default_factory=dict)
    source: str = ""


def to_integers(
    network: Network | IntegerNetwork, law: str, profile: str, delays: str, scale: str, calibrate: Any
) -> IntegerNetwork:
    """Return the integers of a target: quantised from a float network, or those given.

    Raises:
        InputError: The target cannot hold the network, or it is an integer network of another law.
    """
    if isinstance(network, IntegerNetwork):
        if network.law != law:
            raise InputError(f"export: this target holds networks of law {law!r}, got one of law {network.law!r}")
        return network
    from snnsim.quantize import QuantizeOptions, quantize

    options = QuantizeOptions(delays=delays, scale=scale)  # type: ignore[arg-type]
    tail = network.noted_steps("tail_steps")
    return quantize(network, profile, options=options, calibration=calibrate, tail_steps=tail)[0]


def pack_meta(network: IntegerNetwork, order: Sequence[str]) -> bytes:
    """Return the text for a network whose populations stand in the file in ``order``."""
    readout = network.readout
    values = {
        "schema": 1,
        "input": network.inputs[0].name,
        "names": list(order),
        "kinds": [network.population(name).kind for name in order],
        "sizes": [network.population(name).size for name in order],
        "dt": network.dt,
        "readout": None
        if readout is None
        else {name: getattr(readout, name) for name in ("population", "variable", "reduce", "skip_steps")},
        "scale": {name: _short(network.scale[name].tolist()) for name in order},
        "latency": {name: network.latency[name] for name in order},
        "source": network.source,
    }
    return json.dumps(values, separators=(",", ":")).encode()


def _short(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values


def unpack_meta(text: bytes, path: str | Path) -> Meta:
    """Read what :func:`pack_meta` wrote; empty text gives plain names.

    Raises:
        SnnsimFileError: It is damaged.
    """
    if not text:
        return Meta()

    def wrong(what: str) -> SnnsimFileError:
        return SnnsimFileError(path, "snnsim", f"{what}; the file is damaged or from elsewhere: remove the entry")

    if len(text) > MAX_TEXT:
        raise wrong("the names are too long")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong("its names are no JSON text") from error
    if not isinstance(values, dict) or values.get("schema") != 1:
        raise wrong("expected an object of schema 1")
    kinds: dict[str, Any] = {
        **{"input": str, "names": list, "kinds": list, "sizes": list, "dt": float},
        **{"scale": dict, "latency": dict, "source": str},
    }
    for name, kind in kinds.items():
        if not isinstance(values.get(name), kind):
            raise wrong(f"{name}: expected {kind.__name__}")
    lists = values["names"], values["kinds"], values["sizes"]
    right = all(isinstance(item, str) for item in (*lists[0], *lists[1]))
    right = right and all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in lists[2])
    right = right and len({len(item) for item in lists}) == 1
    readout = values.get("readout")
    if not right or not (readout is None or isinstance(readout, dict)):
        raise wrong("names, kinds, sizes and readout do not fit together")
    keys = ("input", "dt", "readout", "scale", "latency", "source")
    return Meta(names=tuple(lists[0]), kinds=tuple(lists[1]), sizes=tuple(lists[2]), **{k: values[k] for k in keys})


def build(path: str | Path, make: Callable[[], T]) -> T:
    """Call ``make`` and turn its refusals into those of the file.

    Raises:
        SnnsimFileError: What the file holds is no network.
    """
    try:
        return make()
    except SnnsimFileError:
        raise
    except InputError as error:
        raise SnnsimFileError(path, "", f"holds no network: {error}") from error
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise SnnsimFileError(path, "", f"holds no network ({type(error).__name__}: {error})") from error


def make_readout(meta: Meta) -> Readout | None:
    """Return the readout."""
    return None if meta.readout is None else Readout(**meta.readout)
