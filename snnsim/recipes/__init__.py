"""Recipes: one TOML file a published experiment, read strictly.

>>> from snnsim.recipes import load_recipe
>>> load_recipe("shd-dcls", ["train.epochs=3"]).train.epochs
3
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from snnsim.errors import InputError, SnnsimFileError
from snnsim.recipes.schema import Recipe

__all__ = ["Recipe", "apply_changes", "list_recipes", "load_recipe", "recipe_from_dict"]

LARGEST_FILE = 1 << 20


def list_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("snnsim.recipes")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(source: str | Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply changes.

    Args:
        source: Name of a built-in recipe, ``NAME:VARIANT`` for one of its published variants, or the path of
            a ``.toml`` or ``.json`` file.
        changes: ``"table.key=value"`` each, in order; the value is written as in TOML, bare words are strings,
            and ``none`` removes an optional key.

    Returns:
        The checked recipe.

    Raises:
        InputError: An unknown recipe, variant or key, a wrong type or a value out of range.
        SnnsimFileError: The file cannot be read.
    """
    text = str(source)
    if text.endswith((".toml", ".json")):
        data, where, variant = _read_file(Path(source)), text, None
    else:
        name, _, chosen = text.partition(":")
        known = list_recipes()
        if name not in known:
            raise InputError(
                f"recipe {name!r} is not known; {_nearest(name, known)}known: {', '.join(known)}; "
                "or give the path of a .toml file"
            )
        raw = resources.files("snnsim.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        data, where, variant = tomllib.loads(raw), f"recipe {name!r}", chosen or None
    if variant is not None:
        rows = {row["variant"]: row for row in data.get("published", [])}
        if variant not in rows:
            hint = _nearest(variant, rows)
            raise InputError(f"{where} has no variant {variant!r}; {hint}known: {', '.join(rows) or 'none'}")
        data = apply_changes(data, rows[variant].get("changes", []))
        data["variant"] = variant
    return recipe_from_dict(apply_changes(data, changes), where)


def recipe_from_dict(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check plain values and build a recipe; see :func:`load_recipe` for the errors."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(error)}") from None


def apply_changes(data: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with ``"a.b=value"`` changes applied; the input is left as it is.

    >>> apply_changes({"a": {"b": 1}}, ["a.b=2", "a.c=word"])
    {'a': {'b': 2, 'c': 'word'}}
    """
    result: dict[str, Any] = json.loads(json.dumps(data))
    for change in changes:
        key, equals, text = change.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise InputError(f"change {change!r}: expected key=value, for example train.epochs=20")
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            value = text.strip()
        table = result
        for part in parts[:-1]:
            if table.get(part) is None:  # a stored recipe says null where a table is absent
                table[part] = {}
            table = table[part]
            if not isinstance(table, dict):
                raise InputError(f"change {change!r}: {part!r} is a value, not a table of keys")
        if value == "none":
            table.pop(parts[-1], None) if _optional(parts) else table.__setitem__(parts[-1], value)
        else:
            table[parts[-1]] = value
    return result


def _optional(parts: list[str]) -> bool:
    """Return whether the key at this path may be absent (its default is none)."""
    model: Any = Recipe
    for part in parts[:-1]:
        field = model.model_fields.get(part) if _is_model(model) else None
        if field is None:
            return False
        model = field.annotation
    field = model.model_fields.get(parts[-1]) if _is_model(model) else None
    return field is not None and type(None) in typing.get_args(field.annotation)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SnnsimFileError(path, "", f"is larger than {LARGEST_FILE} bytes, which no recipe is")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror}); is the path right?") from error
    except UnicodeDecodeError as error:
        raise SnnsimFileError(path, "", "is not a text file in UTF-8; expected a TOML recipe") from error
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SnnsimFileError(path, "", f"is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(data, dict):
        raise SnnsimFileError(path, "", f"expected a table of keys, got {type(data).__name__}")
    return data


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model class that holds the last key of a pydantic error location."""
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        annotation: Any = model.model_fields[part].annotation
        candidates = [annotation]
        if typing.get_origin(annotation) in (list, typing.Union, types.UnionType):
            candidates = list(typing.get_args(annotation))
        model = next((item for item in candidates if _is_model(item)), model)
    return model


def _sentence(error: ValidationError) -> str:
    """Turn the first pydantic error into one sentence."""
    first = error.errors(include_url=False)[0]
    location = first["loc"]
    key = ".".join(str(part) for part in location) or "recipe"
    others = error.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = list(_model_at(location).model_fields)
        hint = _nearest(str(location[-1]), known)
        listing = "" if hint else f"known here: {', '.join(known)}"
        return f"unknown key {key!r}; {hint or listing}".strip() + more
    if first["type"] == "missing":
        return f"key {key!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "expected")
    if first["type"] == "value_error":
        return f"{key}: {message}{more}"
    return f"{key}: {message}, got {first['input']!r}{more}"
