"""Threads that go through phases side by side: everybody sees what the phase before left, and failures do not hang."""

import threading

import numpy as np
import pytest

from snnsim.kernels.lanes import run_phases, share


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_phase_sees_all_of_the_one_before(threads):
    x = np.arange(10)
    for _ in range(20):  # the counter of a call is its own

        def part(t, wait):
            low, high = share(10, t, threads)
            for _ in range(30):
                before = np.roll(x, 1)
                wait()
                x[low:high] = before[low:high]
                wait()

        run_phases(part, threads)
    assert np.array_equal(x, np.roll(np.arange(10), 600))


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_is_raised_and_nobody_waits_for_it(failing):
    done = []

    def part(t, wait):
        wait()
        if t == failing:
            raise ZeroDivisionError("planted")
        wait()
        done.append(t)

    with pytest.raises(ZeroDivisionError, match="planted"):
        run_phases(part, 2)
    assert done == [1 - failing]


def test_callers_at_the_same_time_take_turns():
    results = []

    def call(number):
        sums = np.zeros(2, np.int64)

        def part(t, wait):
            for _ in range(20):
                sums[t] += number
                wait()

        run_phases(part, 2)
        results.append(int(sums.sum()))

    callers = [threading.Thread(target=call, args=(k,)) for k in (1, 2, 3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(results) == [40, 80, 120]


def test_shares_cover_everything_once():
    assert [share(7, t, 3) for t in range(3)] == [(0, 2), (2, 4), (4, 7)]
    assert [share(1, t, 2) for t in range(2)] == [(0, 0), (0, 1)]
