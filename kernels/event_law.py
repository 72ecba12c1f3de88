"""The membrane between two events, in closed form, and the first time at which it reaches threshold.

``y = v - v_inf`` is the distance from where the drive alone would bring the membrane, ``i_e`` and ``i_i`` are the
two synaptic currents measured from their steady values, all at the neuron's last event; ``t`` counts from there::

    y(t) = y e^(-t/tau_mem) + i_e K_e(t) + i_i K_i(t)
    K(t) = tau_syn / (tau_mem - tau_syn) (e^(-t/tau_mem) - e^(-t/tau_syn)),   t/tau e^(-t/tau) at equal ones

A neuron fires where ``y`` rises to ``gap = v_threshold - v_inf``. ``docs/event-engine.md`` proves that ``y`` has
at most two extrema, which is why :func:`first_crossing` misses nothing, and :func:`safe_time`'s bound.
"""

from __future__ import annotations

import math

from snnsim.kernels.bare import bare, bare_inline
from snnsim.kernels.decay import decay

__all__ = [
    *(
        "AMOUNT",
        "COLUMNS",
        "CURRENT",
        "DRIVE",
        "GAP",
        "GAIN_E",
        "GAIN_I",
        "KIND",
        "LEAK",
        "LEFT_E",
        "LEFT_I",
        "LINEAR",
        "RATE_E",
        "RATE_I",
    ),
    *("RATE_M", "RESET", "RESET_ZERO", "SOON", "STEADY", "TAU", "T_REF", "VINF"),
    *("first_crossing", "membrane", "moved", "safe_time", "safe_until"),
]

# columns of a law: the numbers of a neuron, shared by all neurons that have the same
KIND = 0  # LINEAR, LEAK or CURRENT
TAU = 1  # tau_mem
RATE_M = 2  # 1 / tau_mem
RATE_E = 3  # 1 / tau of the first current
RATE_I = 4  # 1 / tau of the second
GAIN_E = 5  # tau / (tau_mem - tau), 0 where the two are so close that another form is used
GAIN_I = 6
VINF = 7  # where v goes without spikes and arrivals
GAP = 8  # v_threshold - v_inf, infinite without threshold
RESET = 9  # y after a zero reset
AMOUNT = 10  # taken off by a subtract reset
RESET_ZERO = 11
T_REF = 12
DRIVE = 13  # slope of v in a LINEAR law
STEADY = 14  # steady value of the first current
SOON = 15  # a short time
LEFT_E = 16  # share of the first current that is left after it
LEFT_I = 17
COLUMNS = 18

LINEAR = 0.0  # IF
LEAK = 1.0  # LIF, LI
CURRENT = 2.0  # CubaLIF, CubaLI, ExpCurrentLIF

MARGIN = 1e-12  # relative distance from threshold below which nothing is excluded by a bound
NEAR = 0.0625  # membrane time constants in which a crossing is looked for first
HORIZON = 64.0  # longest time constants after which a transient is below every rounding


@bare_inline
def kernel(t, decay_m, decay_s, gain, rate_m, rate_s):  # type: ignore[no-untyped-def]
    """Return K(t) from the two decays over t."""
    if gain != 0.0:
        return gain * (decay_m - decay_s)
    x = t * (rate_s - rate_m)
    ratio = 1.0 if x == 0.0 else -math.expm1(-x) / x
    return t * rate_m * decay_m * ratio


@bare_inline
def moved(t, y, i_e, i_i, decay_m, decay_e, decay_i, laws, row):  # type: ignore[no-untyped-def]
    """Return y after a time t without events from the decays over it (CURRENT only)."""
    rate_m = laws[row, RATE_M]
    y = y * decay_m + i_e * kernel(t, decay_m, decay_e, laws[row, GAIN_E], rate_m, laws[row, RATE_E])
    if i_i != 0.0:
        y += i_i * kernel(t, decay_m, decay_i, laws[row, GAIN_I], rate_m, laws[row, RATE_I])
    return y


@bare
def membrane(t, y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return y, i_e and i_i after a time t without events (not refractory)."""
    kind = laws[row, KIND]
    if kind == LINEAR:
        return y + laws[row, DRIVE] * t, 0.0, 0.0
    decay_m = decay(-t * laws[row, RATE_M])
    if kind == LEAK:
        return y * decay_m, 0.0, 0.0
    decay_e, decay_i = decay(-t * laws[row, RATE_E]), decay(-t * laws[row, RATE_I])
    y = moved(t, y, i_e, i_i, decay_m, decay_e, decay_i, laws, row)
    return y, i_e * decay_e, i_i * decay_i


@bare_inline
def safe_time(y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return a time before which y cannot reach the gap without an arrival: a bound, often too early, never late.

    tau_mem y' = -y + i_e + i_i <= -y + p with p the sum of the positive currents, so y stays below the
    solution of tau_mem u' = -u + p, which lies below its tangent. Until SOON a negative current is at most what is
    left of it by then, which gives a second, smaller p for that long.
    """
    gap = laws[row, GAP]
    if gap == math.inf:
        return math.inf
    if laws[row, KIND] == LINEAR:
        if laws[row, DRIVE] <= 0.0:
            return math.inf
        return max(0.0, (gap - y) / laws[row, DRIVE] * (1.0 - MARGIN))
    plus_e, plus_i = max(i_e, 0.0), max(i_i, 0.0)
    p = plus_e + plus_i
    left = gap - y - MARGIN * (abs(gap) + abs(y) + abs(i_e) + abs(i_i))
    # no branches: which way they go is not foreseeable, and a wrong guess costs more than a division
    area, soon = left * laws[row, TAU] * (1.0 - MARGIN), laws[row, SOON]
    reach = p - y
    time = math.inf if p <= gap else area / reach
    reach += (i_e - plus_e) * laws[row, LEFT_E] + (i_i - plus_i) * laws[row, LEFT_I]
    sooner = soon if reach * soon <= area else area / reach
    time = max(time, min(sooner, soon))
    return time if left > 0.0 else 0.0


@bare
def safe_until(t, y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Say whether the bound excludes a crossing in [0, t]; negative currents count as they stand at t."""
    gap = laws[row, GAP]
    left = gap - y - MARGIN * (abs(gap) + abs(y) + abs(i_e) + abs(i_i))
    if left <= 0.0:
        return False
    p = 0.0
    if laws[row, KIND] == CURRENT:
        p += i_e if i_e > 0.0 else i_e * decay(-t * laws[row, RATE_E])
        p += i_i if i_i > 0.0 else i_i * decay(-t * laws[row, RATE_I])
    if p <= gap - MARGIN * (abs(gap) + abs(i_e) + abs(i_i)):
        return True
    return t * laws[row, RATE_M] * (p - y) < left * (1.0 - MARGIN)


@bare
def _slope(t, y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return tau_mem y'(t)."""
    y, i_e, i_i = membrane(t, y, i_e, i_i, laws, row)
    return i_e + i_i - y


@bare
def _extremum(low, high, y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return where y' is zero in (low, high), where it changes its sign once.

    Safe Newton steps on w = tau_mem y', w' = -w / tau_mem - i_e / tau_e - i_i / tau_i, kept in the bracket.
    """
    sign = 1.0 if _slope(low, y, i_e, i_i, laws, row) > 0.0 else -1.0
    t = 0.5 * (low + high)
    for _ in range(200):
        a, b, c = membrane(t, y, i_e, i_i, laws, row)
        w = b + c - a
        if w * sign > 0.0:
            low = t
        else:
            high = t
        change = -w * laws[row, RATE_M] - b * laws[row, RATE_E] - c * laws[row, RATE_I]
        new = t - w / change if change != 0.0 else low
        if not low < new < high:
            new = 0.5 * (low + high)
            if not low < new < high:
                break
        if abs(new - t) <= 1e-15 * t:
            break
        t = new
    return t


@bare
def _root(low, below, high, above, y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return where y = gap in (low, high], y rising from ``below`` the gap to it or ``above``: safe Newton steps.

    Begins on the chord. A step is the last one if the next would be below the last digit, which steps that shrink
    quadratically foretell.
    """
    gap = laws[row, GAP]
    t = low + (high - low) * (gap - below) / (above - below)
    if not low < t < high:
        t = high
    former = high - low
    for _ in range(200):
        a, b, c = membrane(t, y, i_e, i_i, laws, row)
        f = a - gap
        if f < 0.0:
            low = t
        else:
            high = t
        slope = (b + c - a) * laws[row, RATE_M]
        new = t - f / slope if slope != 0.0 else low
        step = abs(new - t)
        if low <= new <= high and (step <= 4.5e-16 * t or step * step * step <= 1e-18 * t * former * former):
            return new
        if not low < new < high:
            new = 0.5 * (low + high)
            step = high - low
            if not low < new < high:
                return high
        former = step
        t = new
    return t


@bare
def first_crossing(y, i_e, i_i, laws, row):  # type: ignore[no-untyped-def]
    """Return the first time at which y rises from below the gap to it without arrivals; infinity if never.

    The result depends on the state alone, so not on when it is asked for.
    """
    gap, tau = laws[row, GAP], laws[row, TAU]
    kind = laws[row, KIND]
    if gap == math.inf:
        return math.inf
    if kind == LINEAR:
        return (gap - y) / laws[row, DRIVE] if laws[row, DRIVE] > 0.0 and y < gap else math.inf
    if kind == LEAK or (i_e == 0.0 and i_i == 0.0):
        if y < gap < 0.0:
            return tau * math.log1p((y - gap) / gap)
        return math.inf
    rate_e, rate_i = laws[row, RATE_E], laws[row, RATE_I]
    # e^(t/tau_mem) y' is monotone on both sides of this time, where i_e / tau_e + i_i / tau_i = 0
    turn = math.inf
    a, b = i_e * rate_e, -i_i * rate_i
    if a * b > 0.0 and rate_e != rate_i:
        turn = math.log(a / b) / (rate_e - rate_i)
        if turn <= 0.0:
            turn = math.inf
    if i_e + i_i > y < gap:  # rising: if it still does after a short time that holds no turn, it did all along
        for k in range(2):
            near = tau * (NEAR if k == 0 else 4.0 * NEAR)
            if near >= turn:
                break
            reached, left_e, left_i = membrane(near, y, i_e, i_i, laws, row)
            if left_e + left_i <= reached:
                break
            if reached >= gap:
                return _root(0.0, y, near, reached, y, i_e, i_i, laws, row)
    longest = max(tau, 1.0 / rate_e)
    if i_i != 0.0:
        longest = max(longest, 1.0 / rate_i)
    end = HORIZON * longest
    if gap < 0.0 and y < gap:  # it will cross; look no further than needed
        nearer = 0.25 * tau
        while nearer < end:
            if membrane(nearer, y, i_e, i_i, laws, row)[0] >= gap:
                end = nearer
            nearer *= 2.0
    turn = min(turn, end)
    # up to two extrema: one before and one after the turn
    low, value = 0.0, y
    begin, before = 0.0, i_e + i_i - y
    for part in range(2):
        stop = turn if part == 0 else end
        if begin >= stop:
            continue
        reached, left_e, left_i = membrane(stop, y, i_e, i_i, laws, row)
        after = left_e + left_i - reached
        if before > 0.0 > after or before < 0.0 < after:
            at = _extremum(begin, stop, y, i_e, i_i, laws, row)
            peak = membrane(at, y, i_e, i_i, laws, row)[0]
            if value < gap <= peak:
                return _root(low, value, at, peak, y, i_e, i_i, laws, row)
            low, value = at, peak
        if value < gap <= reached:
            return _root(low, value, stop, reached, y, i_e, i_i, laws, row)
        low, value = stop, reached
        begin, before = stop, after
    return math.inf
