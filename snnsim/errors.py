"""Exceptions for user mistakes: one family, one clear sentence each.

The command line prints the sentence of any :class:`SnnsimError` and exits with status 2; every other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["InputError", "MissingLibraryError", "SnnsimError", "SnnsimFileError"]


class SnnsimError(Exception):
    """Base of every error that snnsim raises for input it cannot accept."""


class InputError(SnnsimError, ValueError):
    """A value is not acceptable; the message says what was expected, what came and what to try."""


class SnnsimFileError(SnnsimError, ValueError):
    """A file cannot be read or written.

    Attributes:
        path: The file.
        item: The data set, key or record inside the file, or ``""`` for the file as a whole.
        reason: What was expected, what came, what to try.
    """

    def __init__(self, path: str | Path, item: str, reason: str) -> None:
        self.path = Path(path)
        self.item = item
        self.reason = reason
        where = f"{path}: {item}: " if item else f"{path}: "
        super().__init__(where + reason)

    def __reduce__(self) -> tuple[type[SnnsimFileError], tuple[str, str, str]]:
        return (type(self), (str(self.path), self.item, self.reason))


class MissingLibraryError(SnnsimError, ImportError):
    """An optional library is needed; the message names the extra that installs it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        self.library = library
        self.extra = extra
        self.purpose = purpose
        super().__init__(f"{purpose} needs {library}: install it with  pip install 'snnsim[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingLibraryError], tuple[str, str, str]]:
        return (type(self), (self.library, self.extra, self.purpose))
