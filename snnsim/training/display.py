"""What a person sees of a run: a live table in a terminal, plain lines elsewhere, TensorBoard on request."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from snnsim.errors import MissingLibraryError
from snnsim.learning.memory_estimate import format_bytes

__all__ = ["Display", "TensorBoardLog", "chain", "format_seconds"]

ROWS = 12


def format_seconds(seconds: float) -> str:
    """Return a short duration.

    >>> format_seconds(4000)
    '1h06m'
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


class Display:
    """Print a run's progress: a live table if the stream is a terminal, else one line an epoch.

    Args:
        stream: Where to print; default standard error.
        quiet: Print warnings only.

    Used as ``train(..., callback=Display())``.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.console = Console(file=self.stream, highlight=False)
        self.live: Live | None = None
        self.rows: list[list[str]] = []
        self.started = 0.0
        self.first_epoch = 0
        self.epochs = 0
        self.layers = 0
        self.batch = ""
        self.shown = 0.0
        self.formulations: dict[str, str] = {}

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Show one piece of news."""
        if kind == "warning":
            self.line(f"warning: {facts['text']}")
        elif self.quiet:
            return
        elif kind == "start":
            self._start(facts)
        elif kind == "batch":
            self._batch(facts)
        elif kind == "epoch":
            self._epoch(facts)
        elif kind == "result":
            self.close()

    def line(self, text: str) -> None:
        """Print one line, above the table if there is one."""
        target = self.live.console if self.live is not None else self.console
        target.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the live table; its last state stays."""
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
            self.live.stop()
            self.live = None

    def _start(self, facts: dict[str, Any]) -> None:
        recipe, data, model = facts["recipe"], facts["data"], facts["model"]
        self.started, self.first_epoch = time.monotonic(), int(facts["epoch"])
        self.epochs, self.layers = recipe.train.epochs, len(model.hidden_sizes())
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        held = 0 if data.valid is None else len(data.valid)
        self.line(
            f"{recipe.name} on {data.name}: {len(data.train)} to train, {held} held out ({data.split}), "
            f"{data.n_inputs} inputs, {data.n_classes} classes, {parameters} parameters -> {facts['out']}"
        )
        for index, rate in enumerate(facts["initial_rates"], start=1):
            if rate.factor != 1.0:
                self.line(
                    f"hidden layer {index} scaled by {rate.factor:.3g} before the first update: "
                    f"{rate.before:.2g} -> {rate.after:.2g} spikes a neuron and step"
                )
        self._formulations(facts["formulations"])
        memory = [f"{format_bytes(size)} with {rule}" for rule, size in facts.get("memory", {}).items()]
        if memory:
            others = f" ({', '.join(memory[1:])})" if memory[1:] else ""
            self.line(f"memory of a training step: about {memory[0]}{others}")
        if self.first_epoch:
            self.line(f"resumed after epoch {self.first_epoch}")
        if self.console.is_terminal and self.first_epoch < self.epochs:
            self.live = Live(self._table(), console=self.console, auto_refresh=False, transient=False)
            self.live.start()

    def _formulations(self, chosen: dict[str, str]) -> None:
        if chosen != self.formulations:
            self.formulations = chosen
            self.line("products: " + ", ".join(f"{layer} {how}" for layer, how in chosen.items()))

    def _batch(self, facts: dict[str, Any]) -> None:
        now = time.monotonic()
        if self.live is None or now - self.shown < 0.2:
            return
        self.shown = now
        loss = facts["loss"] / max(1.0, facts["samples"])
        self.batch = f"epoch {facts['epoch'] + 1}, batch {facts['batch']} of {facts['of']}, loss {loss:.4f}"
        self.live.update(self._table(), refresh=True)

    def _epoch(self, facts: dict[str, Any]) -> None:
        done = facts["epoch"] - self.first_epoch
        left = (time.monotonic() - self.started) / max(1, done) * (facts["epochs"] - facts["epoch"])
        delay = facts["mean_delay"]
        row = [
            f"{facts['epoch']}/{facts['epochs']}",
            f"{facts['loss']:.4f}",
            _percent(facts["train_accuracy"]),
            _percent(facts["valid_accuracy"]),
            " ".join(f"{rate:.3f}" for rate in facts["rates"]),
            "-" if delay is None else f"{1000 * delay:.1f}",
            f"{facts['synaptic_operations']:.3g}",
            f"{facts['samples_per_second']:.0f}",
            format_seconds(left),
        ]
        self.rows.append(row)
        self.batch = ""
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
            self._formulations(facts["formulations"])
            return
        names = ("epoch", "loss", "train %", "valid %", "rate", "delay ms", "operations", "samples/s", "left")
        self.line("  ".join(f"{name} {value}" for name, value in zip(names, row, strict=True)))
        self._formulations(facts["formulations"])
        if facts.get("gradient_cosine"):
            self.line(f"  gradient cosine to bptt {facts['gradient_cosine']['all']:.3f}")

    def _table(self) -> Table:
        table = Table(caption=self.batch or None, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("epoch", "loss", "train %", "valid %"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("rate a layer", justify="right", min_width=12)
        for name in ("delay ms", "ops", "samples/s", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows[-ROWS:]:
            table.add_row(*row)
        return table


class TensorBoardLog:
    """Write epochs to TensorBoard; ``metrics.jsonl`` stays the source of truth.

    Args:
        folder: Folder of the event files.

    Raises:
        MissingLibraryError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingLibraryError("tensorboard", "log", "writing TensorBoard files") from error
        self.make = SummaryWriter
        self.folder = Path(folder)
        self.writer: Any = None

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Write one piece of news."""
        if kind == "start":
            self.writer = self.make(str(self.folder))
        elif kind == "epoch":
            step = int(facts["epoch"])
            for name in ("loss", "train_accuracy", "valid_loss", "valid_accuracy", "mean_delay", "synaptic_operations"):
                if facts[name] is not None:
                    self.writer.add_scalar(name, facts[name], step)
            for name, value in (facts.get("gradient_cosine") or {}).items():
                self.writer.add_scalar(f"gradient_cosine/{name}", value, step)
            for index, rate in enumerate(facts["rates"]):
                self.writer.add_scalar(f"rate/layer_{index + 1}", rate, step)
            for name, value in facts["lr"].items():
                self.writer.add_scalar(f"lr/{name}", value, step)
            self.writer.flush()
        elif kind == "result":
            self.writer.close()


def chain(*callbacks: Any) -> Any:
    """Return one callback that calls several in order."""

    def call(kind: str, facts: dict[str, Any]) -> None:
        for callback in callbacks:
            callback(kind, facts)

    return call
