"""Limits profiles: what a chip or another integer target can hold, one JSON file each, every figure with its source.

>>> profile = load_profile("loihi2")
>>> profile.max_delay, profile.reset, profile.figures["max_delay"].basis
(63, ('zero',), 'source')

A profile of your own is a file of the same form (``docs/hardware.md``); its path is used like a name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from snnsim.errors import InputError

__all__ = ["BASES", "FIELDS", "Field", "Figure", "Profile", "load_profile", "profile_names", "read_profile"]

BASES = ("verified", "source", "literature", "estimate", "unknown")
"""How a figure is known: by running the named program; read in its code or documentation; published, not checked;
worked out from published figures; not known (then its value is null)."""

SCHEMA = 1
LARGEST = 2**53


@dataclass(frozen=True)
class Field:
    """One figure that every profile holds.

    Attributes:
        kind: ``whole`` number, ``truth``, ``word`` or ``words``.
        text: What it is.
        words: The words that may stand there.
        low: Least whole number.
    """

    kind: str
    text: str
    words: tuple[str, ...] = ()
    low: int = 0


FIELDS: dict[str, Field] = {
    "neurons": Field("words", "kinds of neuron", ("if", "lif", "cubalif", "li", "cubali")),
    "weight_bits": Field("whole", "bits of a weight with its sign", low=1),
    "weight_low": Field("whole", "lowest weight", low=-LARGEST),
    "weight_high": Field("whole", "highest weight"),
    "weight_even": Field("truth", "whether weights must be even"),
    "decay_grid": Field(
        "word", "decays: k / 2**bits, 1 - 2**-k, float, or no leak", ("linear", "pow2", "float", "none")
    ),
    "decay_bits": Field("whole", "bits of a decay", low=1),
    "decay_per": Field("word", "what has a decay of its own", ("neuron", "population")),
    "state_bits": Field("whole", "bits of membrane and current", low=1),
    "threshold_bits": Field("whole", "bits of a threshold", low=1),
    "threshold_per": Field("word", "what has a threshold of its own", ("neuron", "population")),
    "bias_bits": Field("whole", "bits of a bias with its sign", low=1),
    "comparator": Field("word", "a neuron fires at v comparator threshold", (">=", ">")),
    "reset": Field("words", "kinds of reset", ("zero", "subtract")),
    "reset_value": Field("truth", "whether a zero reset may lead to another value than 0"),
    "reset_amount": Field("truth", "whether a subtracting reset may differ from the threshold"),
    "refractory": Field("truth", "whether neurons may be refractory"),
    "input_delay": Field("whole", "least steps from an input's event to its arrival"),
    "min_delay": Field("whole", "least steps from a neuron's spike to its arrival"),
    "max_delay": Field("whole", "most steps from a spike to its arrival"),
    "delay_per": Field("word", "what has a delay of its own", ("synapse", "axon", "none")),
    "layer_latency": Field("whole", "steps that a layer adds at least"),
    "recurrent": Field("truth", "whether populations may be connected in a circle"),
    "graded_input": Field("truth", "whether several events of a channel in a step count as several"),
    "max_inputs": Field("whole", "input channels", low=1),
    "max_outputs": Field("whole", "output neurons", low=1),
    "max_hidden": Field("whole", "neurons that are not outputs", low=1),
    "max_neurons": Field("whole", "neurons in all", low=1),
    "max_synapses": Field("whole", "synapses in all", low=1),
    "max_fan_in": Field("whole", "synapses into a neuron", low=1),
    "max_fan_out": Field("whole", "synapses out of a neuron", low=1),
    "neurons_per_core": Field("whole", "neurons of a core", low=1),
    "synapses_per_core": Field("whole", "synapses into the neurons of a core", low=1),
    "cores": Field("whole", "cores", low=1),
}
"""Every figure of a profile. A null is not checked: there is no such limit, or it is not known."""


@dataclass(frozen=True)
class Figure:
    """A figure and where it comes from.

    Attributes:
        value: The figure, or None.
        basis: One of :data:`BASES`.
        source: The source in full, empty for an unknown figure.
    """

    value: Any
    basis: str
    source: str


@dataclass(frozen=True)
class Profile:
    """What a target can hold. Every field of :data:`FIELDS` is an attribute too: ``profile.max_delay``.

    Attributes:
        name: Short name.
        title: One line for people.
        law: Integer law of its neurons (:data:`snnsim.integer_laws.LAWS`), or None: checked only.
        figures: Figures by name.
        remarks: Sentences about what figures cannot say.
    """

    name: str
    title: str
    law: str | None
    figures: dict[str, Figure]
    remarks: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            return self.figures[name].value
        raise AttributeError(f"Profile has no {name!r}")

    def unchecked(self) -> list[str]:
        """Return the names of the figures without a value."""
        return [name for name, figure in self.figures.items() if figure.value is None]


def profile_names() -> list[str]:
    """Return the names of the built-in profiles, sorted."""
    folder = resources.files("snnsim.limits")
    return sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json"))


def load_profile(name: str | Path | Profile) -> Profile:
    """Return a built-in profile by name, or read one from a JSON file by its path.

    Raises:
        InputError: Unknown name, unreadable file, or a file that is not a profile.
    """
    if isinstance(name, Profile):
        return name
    if str(name) in profile_names():
        text = (resources.files("snnsim.limits") / f"{name}.json").read_text(encoding="utf-8")
        return read_profile(text, f"profile {name}")
    path = Path(name)
    if path.suffix != ".json" and not path.is_file():
        raise InputError(
            f"profile: expected one of {', '.join(profile_names())} or the path of a JSON file, got {str(name)!r}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"profile {name}: cannot be read ({getattr(error, 'strerror', error)})") from error
    return read_profile(text, str(name))


def _refuse_number(word: str) -> Any:
    raise ValueError(f"{word} is no figure")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r} stands twice")
    return dict(pairs)


def read_profile(text: str, what: str = "profile") -> Profile:
    """Return the profile that a JSON text describes.

    Args:
        text: The JSON.
        what: What it is called in messages.

    Raises:
        InputError: Not JSON, keys missing or unknown, or a value that cannot be.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: is not readable JSON ({error})") from None
    _only(value, {"schema", "name", "title", "law", "sources", "figures", "remarks"}, what, "")
    if value["schema"] != SCHEMA or isinstance(value["schema"], bool):
        raise InputError(f"{what}: schema: expected {SCHEMA}, got {value['schema']!r}")
    for key in ("name", "title"):
        if not isinstance(value[key], str) or not value[key].strip():
            raise InputError(f"{what}: {key}: expected text, got {value[key]!r}")
    law = value["law"]
    if law is not None and law not in ("loihi2", "xylo", "fixed"):
        raise InputError(f"{what}: law: expected null, 'loihi2', 'xylo' or 'fixed', got {law!r}")
    sources, remarks = value["sources"], value["remarks"]
    if not isinstance(sources, dict) or not all(isinstance(item, str) and item for item in sources.values()):
        raise InputError(f"{what}: sources: expected texts by short names")
    if not isinstance(remarks, list) or not all(isinstance(item, str) for item in remarks):
        raise InputError(f"{what}: remarks: expected a list of sentences")
    _only(value["figures"], set(FIELDS), what, "figures.")
    figures = {name: _figure(name, value["figures"][name], sources, what) for name in FIELDS}
    unused = sorted(set(sources) - {item["source"] for item in value["figures"].values() if "source" in item})
    if unused:
        raise InputError(f"{what}: sources: {unused[0]!r} is cited by no figure")
    profile = Profile(value["name"], value["title"], law, figures, tuple(remarks))
    _agree(profile, what)
    return profile


def _only(value: Any, known: set[str], what: str, where: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{what}: {where.rstrip('.') or 'profile'}: expected an object, got {type(value).__name__}")
    missing, unknown = sorted(known - set(value)), sorted(set(value) - known)
    if missing:
        raise InputError(f"{what}: {where}{missing[0]}: is missing")
    if unknown:
        raise InputError(f"{what}: {where}{unknown[0]}: is not known; known: {', '.join(sorted(known))}")


def _figure(name: str, record: Any, sources: dict[str, str], what: str) -> Figure:
    where = f"figures.{name}"
    cited = isinstance(record, dict) and record.get("basis") != "unknown"
    _only(record, {"value", "basis", "source"} if cited else {"value", "basis"}, what, f"{where}.")
    value, basis = record["value"], record["basis"]
    if basis not in BASES:
        raise InputError(f"{what}: {where}.basis: expected one of {list(BASES)}, got {basis!r}")
    if cited and (not isinstance(record["source"], str) or record["source"] not in sources):
        raise InputError(f"{what}: {where}.source: expected one of {sorted(sources)}, got {record['source']!r}")
    if not cited and value is not None:
        raise InputError(f"{what}: {where}: a figure of unknown basis has the value null, got {value!r}")
    field = FIELDS[name]
    if value is None:
        return Figure(None, basis, sources[record["source"]] if cited else "")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if field.kind == "whole" and (not whole or not field.low <= value <= LARGEST):
        raise InputError(
            f"{what}: {where}: expected null or a whole number of at least {field.low} ({field.text}), got {value!r}"
        )
    if field.kind == "truth" and not isinstance(value, bool):
        raise InputError(f"{what}: {where}: expected null, true or false ({field.text}), got {value!r}")
    if field.kind == "word" and value not in field.words:
        raise InputError(f"{what}: {where}: expected null or one of {list(field.words)}, got {value!r}")
    if field.kind == "words":
        fine = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
        if not fine or not set(value) <= set(field.words) or len(set(value)) < len(value):
            raise InputError(f"{what}: {where}: expected some of {list(field.words)}, got {value!r}")
        value = tuple(value)
    return Figure(value, basis, sources[record["source"]])


def _agree(profile: Profile, what: str) -> None:
    """Refuse figures that contradict one another."""
    for low, high in (("min_delay", "max_delay"), ("weight_low", "weight_high")):
        small, large = getattr(profile, low), getattr(profile, high)
        if small is not None and large is not None and small > large:
            raise InputError(f"{what}: figures.{low}: {small} lies above {high}, {large}")
    if profile.law is None:
        return
    needed: tuple[str, ...] = (
        "neurons",
        "weight_low",
        "weight_high",
        "weight_even",
        "decay_grid",
        "min_delay",
        "input_delay",
    )
    if profile.law == "loihi2":
        needed += ("decay_bits", "threshold_bits", "bias_bits")
    for name in (*needed, "comparator", "reset", "delay_per", "decay_per", "threshold_per"):
        if getattr(profile, name) is None:
            raise InputError(f"{what}: figures.{name}: a profile with a law needs it, got null")
