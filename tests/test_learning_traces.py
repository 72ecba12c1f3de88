"""Traces: the kernel is its definition, and the steps are those of the modules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from online_models import BATCH, CLASSES, DT, INPUTS, KINDS, found, looped, model, neurons, source, spikes

from snnsim.kernels.online import trace_gradient
from snnsim.kernels.reference_online import filter_step, trace_step
from snnsim.learning import RTRL
from snnsim.learning.step import OnlineNet
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.model import Block
from snnsim.nn.neurons import CubaLI

UNITS, SAMPLES = 5, 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("decays", [0, 1, 3], ids=["", "filtered", "with current"])
@pytest.mark.parametrize("own", [False, True], ids=["", "onto itself"])
@pytest.mark.parametrize("two", [False, True], ids=["membrane", "two states"])
def test_the_kernel_is_its_definition(two: bool, own: bool, decays: int, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    tolerance = 1e-12 if dtype is np.float64 else 1e-4
    for sources in (1, 9):
        shape = (UNITS, SAMPLES, sources)
        nothing = np.zeros((0, 0, 0), dtype)
        v, w, e = (np.zeros(shape, dtype) for _ in range(3))
        f, f2, total = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros((UNITS, sources), dtype)
        kept = [part.copy() for part in (v, w, e, f, f2, total)]
        factors = rng.normal(size=decays).astype(dtype)
        for step in range(4):
            x = rng.normal(size=(SAMPLES, sources)).astype(dtype)
            cell = rng.normal(size=(5, SAMPLES, UNITS)).astype(dtype)
            unit = rng.normal(size=(8, UNITS)).astype(dtype)
            if not two:
                unit[:5], unit[5], unit[6] = 0, 1, 0
            if not own:
                unit[7] = 0
            direct, filtered = (rng.normal(size=(SAMPLES, UNITS)).astype(dtype) for _ in range(2))
            direct = direct if step % 2 else direct[:0, :0]
            filtered = filtered if step < 3 else filtered[:0, :0]
            sent = [unit[row][:, None, None] * x for row in (5, 6)]
            v, w, e = trace_step((sent[0], 0, 0, sent[1]), cell, unit, v, w, e)
            if decays:
                f, f2 = filter_step(factors, e, f, f2)
            for error, trace in ((direct, e), (filtered, f)):
                if error.shape[0] and (decays or error is direct):
                    total = total + np.einsum("bu,ubi->ui", error, trace)
            mine = [kept[0], kept[1] if two else nothing, kept[2] if own else nothing]
            mine += [kept[3] if decays else nothing, kept[4] if decays == 3 else nothing]
            for start, stop in ((0, 2), (2, UNITS)):
                trace_gradient(x, cell, unit, factors, *mine, direct, filtered, kept[5], start, stop)
        pairs = [(kept[0], v), (kept[5], total)]
        pairs += [(kept[1], w)] if two else []
        pairs += [(kept[2], e)] if own else []
        pairs += [(kept[3], f)] if decays else []
        pairs += [(kept[4], f2)] if decays == 3 else []
        for got, wanted in pairs:
            assert np.abs(got - wanted).max() < tolerance * max(1.0, np.abs(wanted).max())
            assert np.abs(wanted).max() > 1e-3


def test_without_own_states_the_kernel_takes_the_membrane_of_all_units() -> None:
    rng = np.random.default_rng(5)
    x, psi = rng.normal(size=(SAMPLES, 4)), rng.normal(size=(SAMPLES, UNITS))
    cell, unit, nothing = np.zeros((5, SAMPLES, UNITS)), np.zeros((8, UNITS)), np.zeros((0, 0, 0))
    cell[2] = psi
    f, total = rng.normal(size=(UNITS, SAMPLES, 4)), np.zeros((UNITS, 4))
    direct, filtered = rng.normal(size=(SAMPLES, UNITS)), rng.normal(size=(SAMPLES, UNITS))
    e = psi.T[:, :, None] * x
    wanted = 0.7 * f + e
    gradient = np.einsum("bu,ubi->ui", direct, e) + np.einsum("bu,ubi->ui", filtered, wanted)
    arguments = (x, cell, unit, np.array([0.7]), nothing, nothing, nothing, f, nothing, direct, filtered, total)
    trace_gradient(*arguments, 0, UNITS)
    assert np.abs(f - wanted).max() < 1e-14
    assert np.abs(total - gradient).max() < 1e-13


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_steps_are_those_of_the_model(kind: str, reset: str) -> None:
    x = spikes(4)
    for loop, t_ref in itertools.product((False, True), (0.0, 0.002)):
        first = neurons(kind, 6, learn=True, reset=reset, t_ref=t_ref)
        second = neurons(kind, 6, reset=reset, v_threshold=0.3)
        blocks = [
            Block(
                Linear(INPUTS, 6, bias=True, generator=source(1)),
                looped(first, diagonal=False) if loop else first,
                dropout=SequenceDropout(0.3),
            ),
            Block(Linear(6, 6, generator=source(2)), second, residual=True),
        ]
        readout = CubaLI(CLASSES, dt=DT) if loop else None
        network = model(*blocks, readout=readout)
        context = Context(None, torch.arange(BATCH), 3, 1)
        with torch.no_grad():
            whole = network(x, None, context, record=True)
        net = OnlineNet(network, BATCH, x.dtype, context)
        ends = []
        for length in (1, 7):  # a reset brings everything back
            net.reset()
            traces, fired = [], []
            for stretch in torch.split(x, length):
                traces.append(net.advance(stretch))
                fired.append([layer.spikes() for layer in net.hidden])
            ends.append(torch.cat(traces))
            torch.testing.assert_close(ends[-1], whole.trace, rtol=1e-13, atol=1e-13)
            for k, expected in enumerate(whole.spikes):
                assert torch.equal(torch.cat([part[k] for part in fired]), expected)
                assert float(expected.sum()) > 10
        assert torch.equal(*ends)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_same_bits_for_any_number_of_threads(reset: str) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            network = model(neurons("lif", 30, reset=reset), neurons("alif", 40, learn=True))
            results.append(found(RTRL(two_pass=True), network, spikes())[1])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, gradient in results[0].items():
            assert torch.equal(gradient, other[name])


@pytest.mark.parametrize("decays", [1, 3])
@pytest.mark.parametrize("two", [False, True])
def test_traces_of_silent_sources_become_zero(two: bool, decays: int) -> None:
    """Numbers below the smallest normal one would stay there for ever: 0.8 of the smallest number rounds to itself."""
    shape, nothing = (UNITS, SAMPLES, 2), np.zeros((0, 0, 0), np.float32)
    v, w, f, f2 = (np.ones(shape, np.float32) for _ in range(4))
    cell, unit = np.zeros((5, SAMPLES, UNITS), np.float32), np.zeros((8, UNITS), np.float32)
    cell[0], cell[1], cell[2], cell[3] = 1, 0.8, 0.5, 1
    unit[0], unit[2], unit[5] = 0.1, 0.8, 1
    x, empty = np.zeros((SAMPLES, 2), np.float32), np.zeros((0, 0), np.float32)
    mine = (v, w if two else nothing, nothing, f, f2 if decays == 3 else nothing)
    factors = np.array([0.8, 0.8, 0.1][:decays], np.float32)
    for _ in range(900):
        trace_gradient(x, cell, unit, factors, *mine, empty, empty, np.zeros((UNITS, 2), np.float32), 0, UNITS)
    assert all(not part.any() for part in mine)
