"""The flat event store: construction, views, equality, steps and binning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsim.datasets.batches import bin_batch, pool_table
from snnsim.errors import InputError
from snnsim.events import Events, bin_events, default_duration
from snnsim.grid import time_to_step
from snnsim.kernels import binning, reference_binning


def random_events(seed: int = 0, n: int = 7, n_units: int = 23, longest: float = 0.3) -> Events:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 60, n)
    sizes[0] = 0
    times = [np.sort(rng.choice([0.001, 0.0005, 0.01]) * rng.integers(0, int(longest / 0.01), k)) for k in sizes]
    units = [rng.integers(0, n_units, k) for k in sizes]
    return Events.from_lists(
        times, units, n_units, rng.integers(0, 4, n), speakers=rng.integers(0, 3, n), class_names="abcd"
    )


def test_samples_are_views_that_keep_everything_about_the_sample() -> None:
    events = random_events()
    one = events[3]
    assert len(one) == 1
    assert np.shares_memory(one.times, events.times)
    assert one.labels[0] == events.labels[3]
    assert one.speakers is not None
    assert events.speakers is not None
    assert one.speakers[0] == events.speakers[3]
    assert one.sample_ids.tolist() == [3]
    assert events[-1] == events[6]
    with pytest.raises(IndexError, match="sample 7 of 7"):
        events[7]
    assert [len(part) for part in events] == [1] * 7


def test_subset_keeps_sample_ids_and_order() -> None:
    events = random_events()
    part = events.subset([5, 1])
    assert part.sample_ids.tolist() == [5, 1]
    assert np.array_equal(part[0].times, events[5].times)
    assert part.subset([1]).sample_ids.tolist() == [1]
    assert events.subset(np.arange(7)) == events
    assert events.subset(events.labels == events.labels[2]).labels.tolist().count(events.labels[2]) > 0
    with pytest.raises(InputError, match=r"indices in \[0, 7\)"):
        events.subset([7])


def test_equality_and_digest_see_every_field() -> None:
    events = random_events()
    again = random_events()
    assert events == again
    assert events.digest() == again.digest()
    others = [
        random_events(1),
        events.widen(24),
        events.subset([0, 1, 2, 3, 4, 6, 5]),
        Events.from_lists([[0.1]], [[1]], 23),
    ]
    for other in others:
        assert events != other
        assert events.digest() != other.digest()


def test_concatenating_the_samples_gives_the_whole() -> None:
    events = random_events()
    assert Events.concatenate([events[i] for i in range(7)]) == events
    with pytest.raises(InputError, match="agree in units"):
        Events.concatenate([events, events.widen(30)])


def test_arrays_cannot_be_changed() -> None:
    events = random_events()
    with pytest.raises(ValueError, match="read-only"):
        events.times[0] = 1.0
    with pytest.raises(AttributeError):
        events.n_units = 3  # type: ignore[misc]


def test_equal_times_are_put_in_order_of_unit() -> None:
    events = Events.from_lists([[0.1, 0.1, 0.2]], [[5, 2, 0]], n_units=6)
    assert events.units.tolist() == [2, 5, 0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"times": [[0.2, 0.1]]}, "times of sample 0 descend; pass sort=True"),
        ({"times": [[0.1, np.nan]]}, "finite times"),
        ({"times": [[-0.1, 0.1]]}, "finite times >= 0"),
        ({"units": [[0, 4]]}, r"units in \[0, 4\)"),
        ({"units": [[0, -1]]}, r"expected units in \[0, n_units\)"),
        ({"units": [[0.5, 1.0]]}, "one-dimensional array of integers"),
        ({"units": [[0]]}, "2 times but 1 units"),
        ({"labels": [-2]}, "-1 for none"),
        ({"labels": [7], "class_names": ["a"]}, "label 7 has no name"),
        ({"duration": [np.inf]}, "finite seconds"),
        ({"speakers": [1, 2]}, "one entry a sample"),
        ({"n_units": 0}, "1 to 2147483647"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(change: dict[str, object], sentence: str) -> None:
    arguments: dict[str, object] = {"times": [[0.1, 0.2]], "units": [[0, 1]], "n_units": 4, **change}
    with pytest.raises(InputError, match=sentence):
        Events.from_lists(**arguments)  # type: ignore[arg-type]


def test_constructor_refuses_offsets_and_order_that_do_not_fit() -> None:
    good = random_events()
    fields = {name: getattr(good, name) for name in Events.__dataclass_fields__}
    with pytest.raises(InputError, match="ascending from 0"):
        Events(**{**fields, "offsets": good.offsets[:-1]})
    with pytest.raises(InputError, match="descend"):
        Events(**{**fields, "times": good.times[::-1].copy()})
    assert Events(**fields) == good


def test_float32_times_are_rounded_to_a_microsecond() -> None:
    time = np.array([0.03], dtype=np.float32)
    assert float(time[0]) != 0.03
    assert Events.from_lists([time], [[0]], 1).times[0] == 0.03


def test_n_steps_counts_the_steps_before_the_end() -> None:
    events = Events.from_lists([[], [], []], [[], [], []], 1, duration=[0.3, 0.300001, 0.0])
    assert events.n_steps(0.1).tolist() == [3, 4, 0]
    assert Events.from_lists([[]], [[]], 1, duration=0.1 * 3).n_steps(0.1).tolist() == [3]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.sampled_from([1e-4, 1e-3, 0.01, 0.003]))
def test_default_duration_leaves_no_event_outside(times: list[float], dt: float) -> None:
    events = Events.from_lists([sorted(times)], [[0] * len(times)], 1)
    assert int(time_to_step(events.times, dt).max()) < events.n_steps(dt)[0]


def test_default_duration_is_the_next_millisecond() -> None:
    assert default_duration([0.0, 0.0304, 0.0309999999]).tolist() == [0.001, 0.031, 0.032]


@pytest.mark.parametrize("dt", [0.001, 0.01, 0.0037])
@pytest.mark.parametrize("pool", [1, 5, 23])
def test_kernel_counts_as_the_reference_and_as_plain_numpy(dt: float, pool: int) -> None:
    events = random_events(3)
    table = pool_table(events.n_units, pool)
    steps = np.array(events.n_steps(dt))
    shape = (int(steps.max()), len(events), -(-events.n_units // pool))
    fast, plain = np.full(shape, 7, np.float32), np.full(shape, 7, np.float32)
    arguments = (events.times, events.units, events.offsets[:-1].copy(), events.offsets[1:].copy(), steps, dt, table)
    assert binning.bin_samples(*arguments, fast) == reference_binning.bin_samples(*arguments, plain) == 0
    assert np.array_equal(fast, plain)
    assert np.array_equal(fast, bin_events(events, dt, pool=pool))
    assert np.array_equal(fast, bin_batch(events, dt, pool=pool))
    assert fast.sum() == events.n_events


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(-3e-5, 3e-5),
    st.sampled_from([1e-4, 1e-3, 0.01, 0.0037, 1 / 3]),
)
def test_kernel_puts_times_near_a_border_where_the_grid_puts_them(step: int, off: float, dt: float) -> None:
    times = np.sort(np.array([(step + off) * dt, (step + 0.5) * dt, (step + 1 + off) * dt, step * dt]))
    times = times[times >= 0]
    expected = time_to_step(times, dt) - max(step - 1, 0)
    out = np.zeros((4, 1, 1), np.float32)
    shift = max(step - 1, 0)
    wide = np.zeros((shift + 4, 1, 1), np.float32) if step < 5000 else None
    if wide is None:  # far from zero only the count of lost events shows where a time fell
        for limit in (step - 1, step, step + 1, step + 2):
            n_steps = np.array([limit])
            arguments = (times, np.zeros(times.size, np.int32), np.zeros(1, np.int64), np.array([times.size]), n_steps)
            expected_lost = int(np.count_nonzero(time_to_step(times, dt) >= limit))
            huge = np.zeros((limit, 1, 1), np.float32)
            assert binning.bin_samples(*arguments, dt, np.zeros(1, np.int32), huge) == expected_lost
        return
    arguments = (times, np.zeros(times.size, np.int32), np.zeros(1, np.int64), np.array([times.size]))
    binning.bin_samples(*arguments, np.array([shift + 4]), dt, np.zeros(1, np.int32), wide)
    np.add.at(out, (expected, 0, 0), 1)
    assert np.array_equal(wide[shift:], out)


def test_events_outside_their_steps_are_refused_or_dropped_on_purpose() -> None:
    events = Events.from_lists([[0.0, 0.05], [0.01]], [[0, 1], [1]], 2)
    for function in (bin_events, bin_batch):
        with pytest.raises(InputError, match=r"1 event\(s\) lie at or after the last step"):
            function(events, 0.01, n_steps=[5, 2])
        counts = function(events, 0.01, n_steps=[5, 2], outside="drop")
        assert counts.sum() == 2
        assert counts.shape == (5, 2, 2)


def test_binning_fills_a_given_array_and_refuses_a_wrong_one() -> None:
    events = random_events(2)
    out = np.full((400, len(events), 23), 9, np.float32)
    for function in (bin_events, bin_batch):
        assert function(events, 0.01, out=out) is out
        assert out.sum() == events.n_events
        with pytest.raises(InputError, match="out: expected float32"):
            function(events, 0.01, out=np.zeros((1, 1, 1), np.float32))
    with pytest.raises(InputError, match="pool: expected at least 1"):
        bin_events(events, 0.01, pool=0)


def test_coincident_events_count_several_times() -> None:
    events = Events.from_lists([[0.01, 0.01, 0.01]], [[2, 2, 2]], 3)
    assert bin_batch(events, 0.01)[1, 0].tolist() == [0, 0, 3]


def test_nothing_is_fine() -> None:
    events = Events.from_lists([], [], 3)
    assert len(events) == 0
    assert bin_events(events, 0.01).shape == (0, 0, 3)
    assert events.n_classes == 0
