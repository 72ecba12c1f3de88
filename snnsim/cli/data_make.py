"""`snnsim data make`: make a data set of one's own."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.data_encode import clips_bar
from snnsim.cli.data_sources import make_source_files
from snnsim.cli.output import emit, note
from snnsim.errors import InputError

__all__ = ["make"]


class Kind(StrEnum):
    """What can be made."""

    spoken_digits = "spoken-digits"
    sources = "sources"


def make(
    kind: Annotated[Kind, typer.Argument(help="What to make.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; a stopped run there is continued.")],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            help="How often each voice says each word (one time: 320 training and 80 test clips), or builtin, small "
            "(5), medium (20; test 10), large (60; test 20) [default: small].",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Another seed: other clips of the same voices, other trains.")
    ] = 0,
    channels: Annotated[
        int | None, typer.Option("--channels", help="Places of the inner ear [default: 700], or trains a sample [1].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Clips encoded at the same time [default: one a processor].")
    ] = None,
    which: Annotated[
        str | None,
        typer.Option("--set", help="Sources: markov-bernoulli [default], markov-markov, structure or rates."),
    ] = None,
    train: Annotated[
        int | None, typer.Option("--train", min=1, help="Sources: training samples [default: 400].")
    ] = None,
    test: Annotated[int | None, typer.Option("--test", min=1, help="Sources: test samples [default: 400].")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Sources: steps of 1 ms a sample [default: 1000].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make spoken digits (text to speech, then the inner ear), or trains of random sources with known statistics.

    Twenty classes (zero to nine in English and German) in SHD's file layout; four of the voices are in the test file
    only. Needs the extra "speech". Ctrl-C leaves what is done; the same command goes on from there, and does nothing
    where the folder holds the same set already. Size "builtin" makes the set that comes with snnsim.

    Sources: labelled trains of Poisson, Bernoulli, Markov and gamma processes, of equal rate but for the set "rates".
    """
    own = {"--set": which, "--train": train, "--test": test, "--steps": steps}
    foreign = {"--size": size, "--threads": threads} if kind is Kind.sources else own
    for option, value in foreign.items():
        if value is not None:
            raise InputError(f"{option}: means nothing for {kind.value}; leave it out")
    if kind is Kind.sources:
        make_source_files(
            out, which or "markov-bernoulli", train or 400, test or 400, steps or 1000, channels or 1, seed, json
        )
        return
    size, channels = size or "small", 700 if channels is None else channels
    begin = time.perf_counter()
    from snnsim.datasets.cochlea import Encoder
    from snnsim.datasets.spoken_digits import BUILTIN_STEP, MAX_SECONDS, make_spoken_digits

    builtin = size == "builtin"
    with clips_bar("made") as progress:
        made = make_spoken_digits(
            out,
            size=size,
            seed=seed,
            time_step=BUILTIN_STEP if builtin else None,
            pack=builtin,
            encoder=Encoder(channels=channels, max_seconds=MAX_SECONDS),
            threads=threads,
            progress=progress,
            notice=note,
        )
    if made.unchanged:
        note(f"{out} holds this set already and its files are whole: nothing was made")
    if made.other_speech:
        note(f"{made.other_speech} of {made.known} clips sound other than in the built-in set: another synthesiser?")
    elif made.other_spikes:
        note(f"{made.other_spikes} of {made.known} clips have other spikes than on the machine of the built-in set")
    clips = made.n_train + made.n_test
    text = [
        f"{made.train}: {made.n_train} clips to train",
        f"{made.test}: {made.n_test} clips to test, voices not heard in training",
        f"{made.spikes / clips:.0f} spikes a clip; sha256 of all spikes {made.digest[:16]}",
        f"use it with --data {out}",
    ]
    result = {
        "n_samples": clips,
        "spikes": made.spikes / clips,
        "seconds": time.perf_counter() - begin,
        "files": [made.train, made.test],
        "data": out,
        "reused": made.reused,
        "unchanged": made.unchanged,
        "speech": made.speech,
        "digest": made.digest,
        "known": made.known,
        "other_speech": made.other_speech,
        "other_spikes": made.other_spikes,
    }
    emit(result, json, "\n".join(text))
