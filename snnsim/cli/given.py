"""Options that were named on the command line, for commands that refuse those that would do nothing."""

from __future__ import annotations

from collections.abc import Collection

import typer

from snnsim.errors import InputError

__all__ = ["refuse_given"]


def refuse_given(context: typer.Context, reason: str, only: Collection[str] = (), but: Collection[str] = ()) -> None:
    """Refuse options that were named on the command line.

    Args:
        context: Of the command.
        reason: Why they would do nothing, and what to do instead.
        only: Names of the options that are refused, as the function's arguments; default: all.
        but: Names of those that are not.

    Raises:
        InputError: One of them was named.
    """
    for item in context.command.params:
        name = item.name or ""
        source = context.get_parameter_source(name)
        named = source is not None and source.name == "COMMANDLINE"
        if named and item.param_type_name == "option" and name not in but and (not only or name in only):
            raise InputError(f"{item.opts[0]}: {reason}")
