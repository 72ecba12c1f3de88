"""Kernels of a device that are made for what they work on, each under a name that says for what.

A function that makes kernels takes texts, whole numbers and truths. Its kernels are called by them, such as
``neurons_forward__float32_0_1``; a profiler shows that name, and their module knows the kernel by it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from numba import cuda

__all__ = ["kernel_by_name", "named_kernel"]


def named_kernel(function: Any, *made_for: str | int | bool) -> Any:
    """Return a kernel of a function, by the function's name and what it was made for.

    Args:
        function: Body of the kernel.
        made_for: Arguments of the function that made it.
    """
    name = "_".join(item if isinstance(item, str) else str(int(item)) for item in made_for)
    function.__name__ = function.__qualname__ = f"{function.__name__}__{name}"
    return cuda.jit(function)


def kernel_by_name(name: str, makers: dict[str, Callable[..., Any]]) -> Any:
    """Return the kernel of that name.

    Args:
        name: What :func:`named_kernel` called it.
        makers: By the name of a kernel's function, what makes it.

    Raises:
        AttributeError: None of them makes such a kernel.
    """
    begin, _, rest = name.partition("__")
    values = rest.split("_")
    if begin not in makers or not rest:
        raise AttributeError(f"no kernel is called {name!r}")
    maker = makers[begin]
    kinds = [parameter.annotation for parameter in inspect.signature(maker).parameters.values()]
    if len(kinds) != len(values):
        raise AttributeError(f"kernel {name!r}: expected {len(kinds)} values after '__', got {len(values)}")
    read: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "bool": lambda value: bool(int(value))}
    return maker(*(read[kind](value) for kind, value in zip(kinds, values, strict=True)))
