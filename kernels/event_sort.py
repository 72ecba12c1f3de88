"""The orders of the event engine: arrivals of one neuron, and spikes of one window and stage."""

from __future__ import annotations

from snnsim.kernels.bare import bare

__all__ = ["sort_arrivals", "sort_spikes"]

FEW = 24  # arrivals that are sorted by insertion


@bare
def _before(log, time_a, a, time_b, b):  # type: ignore[no-untyped-def]
    """Whether arrival a comes before b: by time, then emission time, projection, source."""
    if time_a != time_b:
        return time_a < time_b
    if a == b:
        return False
    if log.time[a] != log.time[b]:
        return log.time[a] < log.time[b]
    if log.projection[a] != log.projection[b]:
        return log.projection[a] < log.projection[b]
    return log.source[a] < log.source[b]


@bare
def _insert(begin, end, buffer, log):  # type: ignore[no-untyped-def]
    """Bring the arrivals of one neuron into order; equal ones keep theirs."""
    time, weight, target, number = buffer.time, buffer.weight, buffer.target, buffer.number
    for i in range(begin + 1, end):
        t, d = time[i], number[i]
        j = i
        while j > begin and _before(log, t, d, time[j - 1], number[j - 1]):
            j -= 1
        if j < i:
            w, g = weight[i], target[i]
            for k in range(i, j, -1):
                time[k], weight[k], target[k], number[k] = time[k - 1], weight[k - 1], target[k - 1], number[k - 1]
            time[j], weight[j], target[j], number[j] = t, w, g, d


@bare
def _merge(begin, end, buffer, log):  # type: ignore[no-untyped-def]
    """Write the order of many arrivals of one neuron into ``order``; merge sort, equal ones keep theirs."""
    time, number, order, spare = buffer.time, buffer.number, buffer.order, buffer.spare
    for i in range(begin, end):
        order[i] = i
    width = 1
    while width < end - begin:
        low = begin
        while low < end:
            middle, high = min(low + width, end), min(low + 2 * width, end)
            a, b = low, middle
            for to in range(low, high):
                take_b = b < high and (
                    a >= middle or _before(log, time[order[b]], number[order[b]], time[order[a]], number[order[a]])
                )
                if take_b:
                    spare[to] = order[b]
                    b += 1
                else:
                    spare[to] = order[a]
                    a += 1
            low = high
        for i in range(begin, end):
            order[i] = spare[i]
        width *= 2


@bare
def sort_arrivals(many, start, buffer, log):  # type: ignore[no-untyped-def]
    """Bring the arrivals of every neuron into order."""
    for j in range(many):
        begin, end = start[j], start[j + 1]
        if end - begin > FEW:
            _merge(begin, end, buffer, log)
            for column in (buffer.time, buffer.weight):
                for i in range(begin, end):
                    buffer.moved[i] = column[buffer.order[i]]
                for i in range(begin, end):
                    column[i] = buffer.moved[i]
            for small in (buffer.target, buffer.number):
                for i in range(begin, end):
                    buffer.spare[i] = small[buffer.order[i]]
                for i in range(begin, end):
                    small[i] = buffer.spare[i]
        elif end - begin > 1:
            _insert(begin, end, buffer, log)


@bare
def sort_spikes(begin, end, time, neuron):  # type: ignore[no-untyped-def]
    """Sort spikes by time, then neuron: heap sort, which needs no room."""
    n = end - begin
    for k in range(2 * n - 1 - n // 2, -1, -1):  # first build the heap, then take the last off
        if k >= n:
            root, size = k - n, n
        else:
            size = k
            if size == 0:
                break
            a, b = begin, begin + size
            time[a], time[b] = time[b], time[a]
            neuron[a], neuron[b] = neuron[b], neuron[a]
            root = 0
        while True:
            child = 2 * root + 1
            if child >= size:
                break
            a, b = begin + child, begin + child + 1
            if child + 1 < size and (time[a] < time[b] or (time[a] == time[b] and neuron[a] < neuron[b])):
                child += 1
                a = b
            b = begin + root
            if time[a] < time[b] or (time[a] == time[b] and neuron[a] < neuron[b]):
                break
            time[a], time[b] = time[b], time[a]
            neuron[a], neuron[b] = neuron[b], neuron[a]
            root = child
