"""The `snnsim` command: a table of commands, each imported only when it is used.

`snnsim --help` must answer at once, so this module imports typer and nothing heavier. The table below is the
single list of commands: help, documentation and tests are made from it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer

from snnsim.errors import SnnsimError

__all__ = ["COMMANDS", "Command", "application", "run"]


@dataclass(frozen=True)
class Command:
    """One row of the command table.

    Attributes:
        module: Module that holds the command, imported when the command is used.
        attribute: Function (a command) or `typer.Typer` (a group of commands) in that module.
        help: One line for the list of commands.
        example: One complete command line, shown below the command's own help.
    """

    module: str
    attribute: str
    help: str
    example: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "snnsim.cli.demo",
        "demo",
        "Train, simulate, export and prove a spoken-digit network, end to end.",
        "snnsim demo --out runs/demo",
    ),
    "doctor": Command(
        "snnsim.cli.doctor",
        "doctor",
        "Say what is installed, what is missing and how to get it.",
        "snnsim doctor",
    ),
    "data": Command(
        "snnsim.cli.data",
        "app",
        "List, inspect, download, make, encode and convert data sets.",
        "snnsim data info spoken-digits",
    ),
    "train": Command(
        "snnsim.cli.train",
        "train",
        "Train a network from a recipe into a run folder.",
        "snnsim train spoken-digits --out runs/first --seed 1",
    ),
    "eval": Command(
        "snnsim.cli.eval",
        "evaluate",
        "Measure a trained run on a data set, with torch or with the clock engine.",
        "snnsim eval runs/first --engine clock",
    ),
    "simulate": Command(
        "snnsim.cli.simulate",
        "simulate",
        "Run a frozen network on events and count its spikes.",
        "snnsim simulate runs/first --events spoken-digits",
    ),
    "reproduce": Command(
        "snnsim.cli.reproduce",
        "reproduce",
        "Train a recipe with several seeds and put mean and spread beside the published number.",
        "snnsim reproduce spoken-digits --seeds 3",
    ),
    "prune": Command(
        "snnsim.cli.prune",
        "prune",
        "Remove synapses and neurons of a recurrent population, without data or labels.",
        "snnsim prune pool.snn.h5 --keep 0.5 --keep-neurons 0.7 --out pruned.snn.h5",
    ),
    "quantize": Command(
        "snnsim.cli.quantize",
        "quantize",
        "Turn a network into the integers of a chip and say what changed.",
        "snnsim quantize runs/first --profile loihi2 --calibrate spoken-digits --out first.int.h5",
    ),
    "export": Command(
        "snnsim.cli.export",
        "export",
        "Write a network for another program and prove that the same spikes come out.",
        "snnsim export runs/first --target nir --out first.nir --check",
    ),
    "inspect": Command(
        "snnsim.cli.inspect",
        "inspect",
        "Show what a network, a run or a data file holds.",
        "snnsim inspect runs/first",
    ),
    "report": Command(
        "snnsim.cli.report",
        "report",
        "Draw a run as one self-contained HTML page.",
        "snnsim report runs/first --out report.html",
    ),
    "lr-find": Command(
        "snnsim.cli.lr_find",
        "lr_find",
        "Search a learning rate with a range test.",
        "snnsim lr-find spoken-digits",
    ),
    "bench": Command(
        "snnsim.cli.bench",
        "app",
        "Time the data path and training on this machine.",
        "snnsim bench data",
    ),
}

PROGRAM = "snnsim"
CONTINUE = {
    "train": "; continue with the same command and --resume",
    "reproduce": "; continue with the same command",
    "demo": "; continue with the same command",
}
OVERVIEW = (
    "Train spiking networks with learnable delays, simulate them, and export them with a proof that the same "
    "spikes come out."
)


def _version(value: bool) -> None:
    if value:
        from snnsim import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _overview(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run one of the commands below."""


def _not_loaded() -> None:
    """Stand in for a command that this call does not use."""
    raise AssertionError("a command was run without being loaded")


def application(selected: str | None) -> typer.Typer:
    """Build the command line with one command loaded and all others as names in the help.

    Args:
        selected: Name of the command that will run; None loads nothing.
    """
    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        name=PROGRAM,
        help=OVERVIEW,
        epilog="Example: snnsim demo. Each command has its own help: snnsim train -h",
        context_settings=settings,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback(help=OVERVIEW)(_overview)
    for name, row in COMMANDS.items():
        if name != selected:
            app.command(name, help=row.help)(_not_loaded)
            continue
        target: Any = getattr(import_module(row.module), row.attribute)
        epilog = f"Example: {row.example}"
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, help=row.help, epilog=epilog, context_settings=settings)
        else:
            app.command(name, epilog=epilog, context_settings=settings)(target)
    return app


def _selected(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _sentence(error: BaseException) -> str | None:
    """Return the one sentence for a user's mistake, or None if the error is a bug."""
    if isinstance(error, SnnsimError):
        return str(error)
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else "a file"
        if isinstance(error, FileNotFoundError):
            return f"{name}: no such file or folder; check the path"
        if isinstance(error, PermissionError):
            return f"{name}: permission denied; choose another place or change its permissions"
        if isinstance(error, IsADirectoryError):
            return f"{name}: expected a file, found a folder"
        if isinstance(error, NotADirectoryError):
            return f"{name}: expected a folder, found a file"
        if error.errno == errno.ENOSPC:
            return f"{name}: no space left on the disk; free some or choose another place"
    message: Callable[[], str] | None = getattr(error, "format_message", None)  # a usage error of typer
    if message is not None:
        context: Any = getattr(error, "ctx", None)
        path = context.command_path if context is not None else PROGRAM
        return f"{' '.join(message().split()).rstrip('.')}; see  {path} -h"
    return None


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    A user's mistake is one sentence on standard error and status 2; Ctrl-C is status 130; any other exception
    is a bug and keeps its traceback.

    Args:
        arguments: Words after the program name; the process's own by default.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads sleep: on shared cores spinning costs 10x
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    name = _selected(words)
    try:
        command = typer.main.get_command(application(name if name in COMMANDS else None))
        status = command.main(args=words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: no error, but Python flushes stdout again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return run([*words, "--help"])
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"{PROGRAM}: {sentence}", file=sys.stderr)
        return 2
    if status == 130:
        print(f"{PROGRAM}: stopped{CONTINUE.get(name or '', '')}", file=sys.stderr)
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(run())
