"""Fused neuron kernels against their plain NumPy twins, over one grid; bits for any thread count."""

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from snnsim.kernels import neurons as kernels
from snnsim.kernels import reference_neurons as reference
from snnsim.kernels.neurons_adaptive import adaptive_backward, adaptive_forward
from snnsim.kernels.neurons_cuba import cuba_backward, cuba_forward
from snnsim.nn.surrogates import ATan

SURROGATE = ATan(5.0)
SHAPES = [(7, 3, 5), (1, 1, 1), (0, 2, 3), (4, 300, 7), (3, 1, 1500)]
GRID = list(itertools.product(SHAPES, (np.float32, np.float64), (True, False), (0, 2), (True, False)))
TOLERANCE = {np.float32: {"rtol": 2e-4, "atol": 2e-4}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}


class Case:
    """Random inputs of one grid point."""

    def __init__(self, shape: tuple[int, int, int], dtype: type, reset_zero: bool, refractory: int) -> None:
        self.rng = np.random.default_rng(7)
        self.shape, self.dtype = shape, dtype
        self.steps, self.batch, self.units = shape
        self.x = self.rng.normal(0.2, 1.0, shape).astype(dtype)
        self.up = self.rng.normal(size=shape).astype(dtype)
        self.refractory = self.rng.integers(0, 2, shape[1:]).astype(np.int32) * (refractory > 0)
        self.law = reference.Spiking(
            self.unit(0.8, 1.2), self.unit(-0.2, 0.1), self.unit(0.5, 1.0), np.full(self.units, refractory, np.int32),
            reset_zero,
        )  # fmt: skip
        self.skip = refractory > 0

    def unit(self, low: float, high: float) -> Any:
        return self.rng.uniform(low, high, self.units).astype(self.dtype)

    def state(self) -> Any:
        return self.rng.normal(0, 0.5, self.shape[1:]).astype(self.dtype)

    def rows(self, array: Any) -> Any:
        """See (time, batch, unit) as (time, lanes) and (batch, unit) as (lanes,)."""
        return array.reshape(*array.shape[:-2], self.batch * self.units)

    def empty(self, dtype: Any = None) -> Any:
        return np.full(self.shape, 99, dtype or self.dtype)

    def active(self) -> Any:
        return self.empty(np.uint8) if self.skip else np.empty((0, self.batch, self.units), np.uint8)

    def run(self, kernel: Any, arguments: list[Any]) -> None:
        rows = [self.rows(a) if isinstance(a, np.ndarray) and a.ndim >= 2 else a for a in arguments]
        kernels.run_lanes(kernel, rows, self.batch * self.units, 2)

    def sums(self, by_lane: Any) -> list[Any]:
        return [row.reshape(self.batch, self.units).sum(axis=0) for row in by_lane]

    def tail(self, detach: bool, *carry: bool) -> list[Any]:
        numbers = kernels.surrogate_numbers(SURROGATE.code, SURROGATE.parameters, self.dtype)
        return [self.law.reset_zero, detach, *carry, SURROGATE.code, numbers]

    def numbers(self) -> list[Any]:
        return [self.law.threshold, self.law.v_reset, self.law.reset_amount]

    def close(self, got: Any, want: Any) -> None:
        np.testing.assert_allclose(got, want, **TOLERANCE[self.dtype])


@pytest.mark.parametrize(("shape", "dtype", "zero", "refractory", "detach"), GRID)
def test_lif_kernels(shape: Any, dtype: type, zero: bool, refractory: int, detach: bool) -> None:
    case = Case(shape, dtype, zero, refractory)
    beta, v = case.unit(0.5, 0.99), case.state()
    want = reference.lif_forward(case.x, v, case.refractory, beta, case.law)
    spikes, saved, active, v_end, wait = case.empty(), case.empty(), case.active(), v.copy(), case.refractory.copy()
    steps = case.law.refractory_steps
    case.run(kernels.lif_forward, [case.x, v_end, wait, beta, *case.numbers(), steps, zero, spikes, saved, active])
    for got, expected in zip((spikes, saved, v_end), (want[0], want[1], want[3]), strict=True):
        np.testing.assert_array_equal(got, expected)
    if case.skip:
        np.testing.assert_array_equal(active, want[2])
        np.testing.assert_array_equal(wait, want[4])
    unsaved = case.empty()
    none = case.x[:0]
    case.run(kernels.lif_forward, [case.x, v.copy(), case.refractory.copy(), beta, *case.numbers(), steps, zero,
                                   unsaved, none, case.active()])  # fmt: skip
    np.testing.assert_array_equal(unsaved, spikes)
    d = case.state()
    for carry in (True, False):
        back = reference.lif_backward(
            saved, want[2], v, case.up, d, beta, case.law, SURROGATE.derivative, detach, carry
        )
        grad, d_end, by_lane = case.empty(), d.copy(), np.empty((4, v.size), dtype)
        case.run(
            lambda *a, by_lane=by_lane: kernels.lif_backward(*a[:-3], by_lane, *a[-2:]),
            [saved, active, v, case.up, d_end, beta, *case.numbers(), *case.tail(detach, carry), grad, None],
        )
        case.close(grad, back[0])
        case.close(d_end, back[1])
        for got, name in zip(case.sums(by_lane), ("beta", "threshold", "v_reset", "reset_amount"), strict=True):
            case.close(got, back[2][name])


@pytest.mark.parametrize(("shape", "dtype"), list(itertools.product(SHAPES, (np.float32, np.float64))))
def test_li_kernels(shape: Any, dtype: type) -> None:
    case = Case(shape, dtype, True, 0)
    beta, v, d = case.unit(0.5, 0.99), case.state(), case.state()
    want = reference.li_forward(case.x, v, beta)
    trace, grad, d_end, by_lane = case.empty(), case.empty(), d.copy(), np.empty(v.size, dtype)
    case.run(kernels.li_forward, [case.x, v.copy(), beta, trace])
    np.testing.assert_array_equal(trace, want)
    case.run(kernels.li_backward, [trace, v, case.up, d_end, beta, grad, by_lane])
    back = reference.li_backward(trace, v, case.up, d, beta)
    case.close(grad, back[0])
    case.close(d_end, back[1])
    case.close(case.sums(by_lane[None])[0], back[2])


@pytest.mark.parametrize(("shape", "dtype", "zero", "refractory", "detach"), GRID)
def test_cuba_kernels(shape: Any, dtype: type, zero: bool, refractory: int, detach: bool) -> None:
    case = Case(shape, dtype, zero, refractory)
    case.x *= 2
    decays = [case.unit(0.5, 0.99), case.unit(0.3, 0.9), case.unit(0.1, 0.9)]
    v, i_syn = case.state(), case.state()
    want = reference.cuba_forward(case.x, v, i_syn, case.refractory, *decays, case.law)
    spikes, saved_v, saved_i, active = case.empty(), case.empty(), case.empty(), case.active()
    v_end, i_end, wait = v.copy(), i_syn.copy(), case.refractory.copy()
    case.run(cuba_forward, [case.x, v_end, i_end, wait, *decays, *case.numbers(), case.law.refractory_steps, zero,
                            spikes, saved_v, saved_i, active])  # fmt: skip
    got = (spikes, saved_v, saved_i, v_end, i_end)
    for a, b in zip(got, (want[0], want[1], want[2], want[4], want[5]), strict=True):
        np.testing.assert_array_equal(a, b)
    d, c = case.state(), case.state()
    back = reference.cuba_backward(
        saved_v, saved_i, want[3], v, case.up, d, c, *decays, case.law, SURROGATE.derivative, detach
    )
    grad, d_end, c_end, by_lane = case.empty(), d.copy(), c.copy(), np.empty((6, v.size), dtype)
    case.run(
        lambda *a: cuba_backward(*a[:-3], by_lane, *a[-2:]),
        [saved_v, saved_i, active, v, case.up, case.up[:0], d_end, c_end, *decays, *case.numbers(),
         *case.tail(detach), grad, None],
    )  # fmt: skip
    for a, b in zip((grad, d_end, c_end), back[:3], strict=True):
        case.close(a, b)
    names = ("beta", "alpha", "kappa", "threshold", "v_reset", "reset_amount")
    for a, name in zip(case.sums(by_lane), names, strict=True):
        case.close(a, back[3][name])


@pytest.mark.parametrize(("shape", "dtype", "zero", "refractory", "detach"), GRID)
@pytest.mark.parametrize("raises_threshold", [True, False])
def test_adaptive_kernels(
    shape: Any, dtype: type, zero: bool, refractory: int, detach: bool, raises_threshold: bool
) -> None:
    case = Case(shape, dtype, zero, refractory)
    parameters = [case.unit(0.5, 0.99), case.unit(0.8, 0.99), case.unit(0, 0.1), case.unit(0, 0.3)]
    parameters.append(case.unit(0.2, 1.0) * (1 if raises_threshold else 0))
    v, w = case.state(), case.state()
    want = reference.adaptive_forward(case.x, v, w, case.refractory, *parameters, case.law)
    spikes, saved_v, saved_w, active = case.empty(), case.empty(), case.empty(), case.active()
    v_end, w_end, wait = v.copy(), w.copy(), case.refractory.copy()
    case.run(adaptive_forward, [case.x, v_end, w_end, wait, *parameters, *case.numbers(), case.law.refractory_steps,
                                zero, spikes, saved_v, saved_w, active])  # fmt: skip
    got = (spikes, saved_v, saved_w, v_end, w_end)
    for a, b in zip(got, (want[0], want[1], want[2], want[4], want[5]), strict=True):
        np.testing.assert_array_equal(a, b)
    d, c = case.state(), case.state()
    back = reference.adaptive_backward(
        saved_v, saved_w, want[3], v, case.up, d, c, *parameters, case.law, SURROGATE.derivative, detach
    )
    grad, d_end, c_end, by_lane = case.empty(), d.copy(), c.copy(), np.empty((8, v.size), dtype)
    case.run(
        lambda *a: adaptive_backward(*a[:-3], by_lane, *a[-2:]),
        [saved_v, saved_w, active, v, case.up, d_end, c_end, *parameters, *case.numbers(), *case.tail(detach), grad,
         None],
    )  # fmt: skip
    for a, b in zip((grad, d_end, c_end), back[:3], strict=True):
        case.close(a, b)
    names = ("beta", "rho", "adapt_v", "adapt_spike", "adapt_threshold", "threshold", "v_reset", "reset_amount")
    for a, name in zip(case.sums(by_lane), names, strict=True):
        case.close(a, back[3][name])


def test_ranges_cover_every_lane_once() -> None:
    for n, threads in itertools.product((1, 5, 1024, 1025, 5000), (1, 2, 3, 16)):
        ranges = kernels.lane_ranges(n, threads)
        assert [lane for start, stop in ranges for lane in range(start, stop)] == list(range(n))
        assert all(start % kernels.BLOCK == 0 for start, _ in ranges)
        assert len(ranges) <= threads


def test_an_error_in_a_thread_is_raised() -> None:
    def fails(start: int, stop: int) -> None:
        if start > 0:
            raise RuntimeError("lane")

    with pytest.raises(RuntimeError, match="lane"):
        kernels.run_lanes(fails, (), 4096, 4)


SCRIPT = """
import hashlib, torch
from snnsim.nn.neurons import AdaptiveLIF, CubaLIF, LIF
from snnsim.nn.norm import BatchNormTime
torch.set_num_threads({threads})
generator = torch.Generator().manual_seed(0)
x = torch.randn(9, 40, 300, generator=generator, requires_grad=True)
digest = hashlib.sha256()
learn = ("tau_mem", "v_threshold")
for module in (LIF(300, dt=0.001, learn=learn), CubaLIF(300, dt=0.001, learn=learn),
               AdaptiveLIF(300, dt=0.001, adapt_spike=0.1, learn=learn), BatchNormTime(300)):
    y = module(x)[0]
    for tensor in (y, *torch.autograd.grad((y * x.detach()).sum(), [x, *module.parameters()])):
        digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def test_bits_are_the_same_in_processes_with_one_and_two_threads() -> None:
    digests = []
    for threads in (1, 2):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(threads=threads)],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert len(digests[0].strip()) == 64
