"""What the names of sound files say: label, speaker and number of a recording, and which split it belongs to.

A pattern is text with fields in braces: ``{label}_{speaker}_{index}`` reads ``7_jackson_32.wav``. A rule picks files by
these fields: ``index<10``, ``speaker=theo,lucas and index>=5``. Both are a few fixed forms; nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from snnsim.errors import InputError

__all__ = ["AUDIO_SUFFIXES", "NamePattern", "Recording", "Rule", "class_order", "find_audio"]

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aif", ".aiff")
FIELDS = ("label", "speaker", "index", "skip")
LARGEST_INDEX = 65_535

_FIELD = re.compile(r"\{([^{}]*)\}")
_CONDITION = re.compile(r"\s*(label|speaker|index)\s*(<=|>=|!=|<|>|=)\s*([^<>=!]+?)\s*")


@dataclass(frozen=True)
class Recording:
    """One sound file and what its name says.

    Attributes:
        path: The file.
        label: Name of its class; empty where the pattern has no label.
        speaker: Name of its speaker, or empty.
        index: Number of the recording, or None.
    """

    path: Path
    label: str = ""
    speaker: str = ""
    index: int | None = None


class NamePattern:
    """A pattern that file names follow.

    Fields are ``{label}``, ``{speaker}``, ``{index}`` (digits) and ``{skip}`` (anything, may occur often); the rest is
    taken as it stands. A slash takes folders in: ``{label}/{speaker}_{skip}``. The extension is not part of it.

    Args:
        text: The pattern.

    Raises:
        InputError: A field is unknown, occurs twice, or touches another.

    >>> NamePattern("{label}_{speaker}_{index}").read(Path("7_jackson_32.wav")).index
    32
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = text.count("/") + 1
        names = _FIELD.findall(text)
        for name in names:
            if name not in FIELDS:
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise InputError(f"name pattern {text!r}: expected fields {known}, got {{{name}}}")
            if name != "skip" and names.count(name) > 1:
                raise InputError(
                    f"name pattern {text!r}: {{{name}}} occurs twice; use {{skip}} for what does not matter"
                )
        if "}{" in text:
            raise InputError(
                f"name pattern {text!r}: two fields touch; put the text between them that names have there"
            )
        if re.search(r"[{}]", _FIELD.sub("", text)) or not names:
            raise InputError(f"name pattern {text!r}: expected fields in braces, for example {{label}}_{{index}}")
        parts = []
        place = 0
        for match in _FIELD.finditer(text):
            parts.append(re.escape(text[place : match.start()]))
            name = match.group(1)
            forms = {"skip": r"[^/]*?", "index": r"(?P<index>[0-9]+)"}
            parts.append(forms.get(name, rf"(?P<{name}>[^/]+?)"))
            place = match.end()
        parts.append(re.escape(text[place:]))
        self.has_label = "label" in names
        self._regex = re.compile("".join(parts))

    def read(self, path: Path) -> Recording:
        """Return what the name of ``path`` says.

        Raises:
            InputError: The name does not follow the pattern.
        """
        name = "/".join(path.with_suffix("").parts[-self.depth :])
        match = self._regex.fullmatch(name)
        if match is None:
            raise InputError(f"{path}: the name does not follow the pattern {self.text!r}; give another --name-pattern")
        found = match.groupdict()
        index = int(found["index"]) if found.get("index") else None
        if index is not None and index > LARGEST_INDEX:
            raise InputError(f"{path}: index {index} is above {LARGEST_INDEX}, the largest that the file layout holds")
        return Recording(path, found.get("label") or "", found.get("speaker") or "", index)


class Rule:
    """A choice of recordings: conditions ``FIELD OPERATOR VALUE`` joined by ``and``.

    ``index`` takes ``<``, ``<=``, ``>``, ``>=``, ``=`` and ``!=``; ``label`` and ``speaker`` take ``=`` and ``!=``.
    With ``=`` and ``!=`` the value may be a list with commas.

    Args:
        text: The rule.

    Raises:
        InputError: It has another form.

    >>> Rule("index<10 and speaker!=theo").holds(Recording(Path("a.wav"), "7", "jackson", 3))
    True
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._conditions = [self._condition(part) for part in re.split(r"\s+and\s+", text.strip())]

    def _condition(self, text: str) -> Callable[[Recording], bool]:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise InputError(f"rule {self.text!r}: expected FIELD OPERATOR VALUE such as index<10, got {text!r}")
        field, operator, value = match.groups()
        values = [item.strip() for item in value.split(",")]
        if operator in ("=", "!="):
            if field == "index":
                values = [str(self._number(item)) for item in values]
            return lambda recording: (str(self._value(recording, field)) in values) == (operator == "=")
        if field != "index" or len(values) != 1:
            raise InputError(f"rule {self.text!r}: {operator} compares index with one number; use = or != for {field}")
        limit = self._number(values[0])
        compare: dict[str, Callable[[int], bool]] = {
            "<": lambda index: index < limit,
            "<=": lambda index: index <= limit,
            ">": lambda index: index > limit,
            ">=": lambda index: index >= limit,
        }
        return lambda recording: compare[operator](int(self._value(recording, "index")))

    def _number(self, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"rule {self.text!r}: expected a whole number for index, got {text!r}")
        return int(text)

    def _value(self, recording: Recording, field: str) -> str | int:
        value: str | int | None = getattr(recording, field)
        if value is None or value == "":
            raise InputError(f"rule {self.text!r}: the name pattern has no {{{field}}}, so {recording.path} has none")
        return value

    def holds(self, recording: Recording) -> bool:
        """Return whether the recording is chosen."""
        return all(condition(recording) for condition in self._conditions)


def class_order(names: Sequence[str]) -> list[str]:
    """Return the different names in order: numbers by value if all are numbers, else by alphabet.

    >>> class_order(["10", "9", "10"])
    ['9', '10']
    """
    different = sorted(set(names))
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in different):
        different.sort(key=int)
    return different


def find_audio(paths: Sequence[Path]) -> list[Path]:
    """Return sound files in a fixed order: files as they are given, folders with all sound files below them by name.

    Raises:
        InputError: A folder holds no sound file, or a file is given twice.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.suffix.lower() in AUDIO_SUFFIXES)
            if not inside:
                raise InputError(f"{path}: the folder holds no sound file ({', '.join(AUDIO_SUFFIXES)})")
            found += inside
        else:
            found.append(path)
    if len(set(found)) != len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise InputError(f"{twice}: given twice; give every file once")
    return found
