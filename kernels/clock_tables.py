"""The tables in which the clock kernel reads a network, and the state it works on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.philox import Stream

__all__ = [
    "ADAPT_DECAY",
    "ADAPT_SPIKE",
    "ADAPT_THRESHOLD",
    "ADAPT_V",
    "ALPHA",
    "ALPHA_INH",
    "AMOUNT",
    "BETA",
    "CALM",
    "DRIVE",
    "EACH",
    "FIRST_PORT",
    "FLAGS",
    "I_REST",
    "KAPPA",
    "KAPPA_INH",
    "LAST_PORT",
    "LATE",
    "LAW",
    "LEVELS",
    "NOISE_COLUMNS",
    "NOISE_NUMBER",
    "NOISE_OWNER",
    "NOISE_PORT",
    "NOISE_SEED",
    "NOISE_WEIGHT",
    "NOTHING",
    "NUMBERS",
    "N_WEIGHTS",
    "OFFSET",
    "OWN",
    "PEAK",
    "PEAK_INH",
    "POISSON",
    "POPULATION_COLUMNS",
    "RATES",
    "REFRACTORY",
    "REFRACTORY_STEPS",
    "RESET_ZERO",
    "ROOM",
    "SETTLE",
    "SIZE",
    "SLEEPY",
    "SOMETHING",
    "START",
    "STOP",
    "STRICT",
    "SYN_STEP",
    "SYN_TO_V",
    "TABLE",
    "THRESHOLD",
    "V_RESET",
    "WHICH",
    "Plan",
    "Sample",
]

POISSON = int(Stream.POISSON)

NOTHING, SOMETHING, SETTLE = 0, 1, 2
"""What a step brings a population: no arrivals, perhaps some, or no step: sleepers are brought up to date."""

RESET_ZERO = 1
STRICT = 2  # only looked at by ADAPTIVE; other thresholds are moved to the next float beforehand
REFRACTORY = 4
OWN = 8  # parameters are one a neuron
SLEEPY = 32  # blocks of neurons are left alone until something arrives
LATE = 16  # arrivals with delay 0 come from other populations: currents take them after all have fired

OFFSET, SIZE, LAW, FLAGS, START, STOP, FIRST_PORT, LAST_PORT, EACH, REFRACTORY_STEPS, POPULATION_COLUMNS = range(11)
"""Columns of the table of populations: first neuron; neurons; law; sum of flags; first step; first step after the last;
first receptor and one past the last; where its neurons' own numbers begin; refractory steps."""

NOISE_OWNER, NOISE_PORT, NOISE_NUMBER, NOISE_SEED, TABLE, RATES, LEVELS, WHICH, NOISE_WEIGHT, N_WEIGHTS = range(10)
NOISE_COLUMNS = 10
"""Columns of the table of Poisson stimuli: population; receptor; place in the list; seed; address, rows and columns of
the thresholds; address of each unit's row (0: row 0 for all); address and number of weights."""

NUMBERS = (
    *("beta", "drive_step", "alpha", "kappa", "alpha_inh", "kappa_inh", "drive_syn_step", "drive_syn_to_v"),
    *("v_threshold", "v_reset", "reset_amount", "adapt_decay", "adapt_v", "adapt_spike", "adapt_threshold"),
    *("calm", "room", "peak", "peak_inh", "i_rest"),
)
"""Numbers per step, names as in :class:`snnsim.neurons.StepParameters`; alpha and kappa of the first receptor; and what
:func:`snnsim.kernels.clock_sleep.fall_asleep` needs. Laws from ALPHA_CURRENT on have rows of their own,
:data:`snnsim.kernels.clock_models.MODEL_NUMBERS`."""

BETA, DRIVE, ALPHA, KAPPA, ALPHA_INH, KAPPA_INH, SYN_STEP, SYN_TO_V = range(8)
THRESHOLD, V_RESET, AMOUNT, ADAPT_DECAY, ADAPT_V, ADAPT_SPIKE, ADAPT_THRESHOLD = range(8, 15)
CALM, ROOM, PEAK, PEAK_INH, I_REST = range(15, 20)

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class Plan(NamedTuple):
    """A network as tables. P populations, N neurons, S receptors, Q paths, T threads a sample.

    Attributes:
        order: Population places in their order of updating, int64 ``(P,)``.
        populations: int64 ``(P, POPULATION_COLUMNS)``.
        ports: int64 ``(S, PORT_COLUMNS)``.
        paths: int64 ``(Q, PATH_COLUMNS)``, see :mod:`snnsim.kernels.clock_rows`; in the order of summation.
        into: Paths by target population, each in ascending order, int64 ``(Q,)``.
        into_start: Where a population's entries of ``into`` begin, int64 ``(P + 1,)``.
        own_edge: First unit of each thread's share of a population, int64 ``(P, T + 1)``.
        one: Numbers per step of populations in the dtype of the run, ``(P, len(NUMBERS))``.
        each: Those of the neurons of populations with OWN, ``(len(NUMBERS), neurons)``.
        refractory: Their refractory steps, int64 ``(neurons,)``.
        window: Most steps in which no neuron feels another's spike.
        noise: Poisson stimuli, int64 ``(., NOISE_COLUMNS)``.
        seed: Of what is drawn at random within the network; None if nothing is, for which kernels are compiled apart.
    """

    order: Ints
    populations: Ints
    ports: Ints
    paths: Ints
    into: Ints
    into_start: Ints
    own_edge: Ints
    one: Array
    each: Array
    refractory: Ints
    window: int
    noise: Ints
    seed: int | None


class Sample(NamedTuple):
    """The changing state of one sample; :func:`run_steps` works in place.

    Attributes:
        values: Variable r of neuron n at ``r N + n``, ``(most variables * N,)``.
        release: Step from which a neuron is not refractory, int64 ``(N,)``.
        held: Lists of refractory neurons, a part a thread and population, int64 ``(N,)``.
        until: Step from which each is free, int64 ``(N,)``.
        kept: Their membranes, ``(N,)``.
        n_held: Lengths of the lists, int64 ``(threads, P)``.
        ring: Sums of what is on its way.
        head: Slot of the next step in each ring, as each thread counts it, int64 ``(threads, S)``.
        since: Blocks of neurons that sleep: the step up to which each is done, or -1, int64.
        first_block: Where the blocks of each thread's share of a population begin, int64 ``(threads, P)``.
        dirty: Per thread, whether something may arrive in a slot of a ring, uint8 ``(threads, slots)``; no slots if
            nobody sleeps.
        moved: Neuron-steps of populations that may sleep which were computed, a row a thread, int64 ``(threads, 8)``.
    """

    values: Array
    release: Ints
    held: Ints
    until: Ints
    kept: Array
    n_held: Ints
    ring: Array
    head: Ints
    since: Ints
    first_block: Ints
    dirty: npt.NDArray[np.uint8]
    moved: Ints
