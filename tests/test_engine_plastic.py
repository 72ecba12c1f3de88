"""Pair STDP in the event engine: pairs against their windows, networks against the plain definition."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from event_networks import DT, driven, inputs, pairs, plain, random_network, run, same

from snnsim.engines import Result, simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.reference_plastic import ReferenceRule, simulate_plastic_reference
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import IF, LI, LIF, CubaLIF
from snnsim.plasticity import PairSTDP

TAU = {"tau_plus": 0.017, "tau_minus": 0.034}
RULE = PairSTDP("in->n", a_plus=0.01, a_minus=0.02, w_max=1.0, **TAU)
RULES = (
    PairSTDP(("lif->cuba", "exp->lif"), a_plus=0.1, a_minus=0.05, w_max=10, w_min=-10),
    PairSTDP(
        ("lif->lif", 1),
        a_plus=0.02,
        a_minus=0.04,
        w_max=10,
        w_min=-10,
        bound="multiplicative",
        pairing="nearest",
        **TAU,
    ),
)


def taught(weights: Any, delay: Any = 0.0, neuron: Any = None) -> Network:
    """Neurons that fire whenever their teacher does; the plastic synapses are too weak for that."""
    weight = np.atleast_2d(weights)
    size = weight.shape[0]
    return Network(
        (Population("n", size, neuron or IF()),),
        (Projection("in", "n", weight, delay), Projection("teacher", "n", 4.0 * np.eye(size))),
        (Input("in", weight.shape[1]), Input("teacher", size)),
        None,
        DT,
    )


def learn(pre: Any, post: Any, rule: PairSTDP = RULE, weight: float = 0.1, delay: float = 0.0) -> float:
    """Return the weight of one synapse after arrivals and spikes at given times."""
    result = run(taught(weight, delay), {"in": inputs(pre), "teacher": inputs(post)}, 1000, plasticity=rule)
    assert result.spikes["n"].times.tolist() == post
    return float(result.weights["in->n"][0][0, 0])


@pytest.mark.parametrize("distance", [0.0, 1e-9, 0.0031, 0.02, 0.11])
def test_a_pair_changes_the_weight_by_its_window(distance: float) -> None:
    later = 0.25 + distance
    gap = later - 0.25
    assert learn([0.25], [later]) == pytest.approx(0.1 + 0.01 * np.exp(-gap / 0.017), rel=1e-14)
    if distance:
        assert learn([later], [0.25]) == pytest.approx(0.1 - 0.02 * np.exp(-gap / 0.034), rel=1e-14)


def test_the_delay_is_axonal() -> None:
    delay = 13 * DT
    assert learn([0.25], [0.3125], delay=delay) == learn([0.25 + delay], [0.3125])
    assert learn([0.3125 - 2 * DT], [0.3125], delay=delay) == learn([0.3125 + 11 * DT], [0.3125])


def test_all_pairs_count_or_only_the_nearest() -> None:
    pre, post = [0.125, 0.25], [0.28125, 0.3125]
    x = [[np.exp(-(t - s) / 0.017) for s in pre] for t in post]
    assert learn(pre, post) == pytest.approx(0.1 + 0.01 * np.sum(x), rel=1e-14)
    nearest = PairSTDP("in->n", a_plus=0.01, a_minus=0.02, w_max=1.0, pairing="nearest", **TAU)
    assert learn(pre, post, nearest) == pytest.approx(0.1 + 0.01 * (x[0][1] + x[1][1]), rel=1e-14)
    x = [[np.exp(-(t - s) / 0.034) for s in pre] for t in post]
    assert learn(post, pre) == pytest.approx(0.1 - 0.02 * np.sum(x), rel=1e-14)
    assert learn(post, pre, nearest) == pytest.approx(0.1 - 0.02 * (x[0][1] + x[1][1]), rel=1e-14)


def test_multiplicative_bounds_slow_down_and_additive_ones_stop() -> None:
    soft = PairSTDP("in->n", a_plus=0.25, a_minus=0.125, w_min=-0.5, w_max=0.5, bound="multiplicative")
    assert learn([0.25], [0.25], soft) == pytest.approx(0.1 + 0.25 * (0.5 - 0.1), rel=1e-14)
    left = 0.125 * np.exp(-0.0625 / 0.02)
    assert learn([0.3125], [0.25], soft) == pytest.approx(0.1 - left * (0.1 + 0.5), rel=1e-14)
    hard = PairSTDP("in->n", a_plus=0.9, a_minus=0.9, w_min=0.05, w_max=0.15)
    assert learn([0.25], [0.25], hard) == 0.15
    assert learn([0.251], [0.25], hard) == 0.05
    reversed_window = PairSTDP("in->n", a_plus=-0.02, a_minus=-0.02, w_max=1.0)
    assert learn([0.25], [0.25], reversed_window) == pytest.approx(0.08, rel=1e-14)


def test_an_arrival_learns_first_and_then_acts() -> None:
    events = {"in": inputs([0.28125]), "teacher": inputs([0.25])}
    result = run(taught(0.1), events, 400, plasticity=RULE, record=["n.v"])
    weight = 0.1 - 0.02 * np.exp(-0.03125 / 0.034)
    assert result.records["n.v"][0][-1, 0] == result.weights["in->n"][0][0, 0] == pytest.approx(weight, rel=1e-14)


def test_at_one_instant_arrivals_come_before_the_spike() -> None:
    """One arrival makes the neuron fire: it is depressed by the spikes before, then potentiated by itself."""
    rule = PairSTDP("in->n", a_plus=0.25, a_minus=0.5, w_min=0.0, w_max=9.0, **TAU)
    result = run(driven(IF(), [[4.0]]), inputs([0.25, 0.28125]), 400, plasticity=rule)
    assert result.spikes["n"].times.tolist() == [0.25, 0.28125]
    gap = 0.03125
    expected = 4.25 - 0.5 * np.exp(-gap / 0.034) + 0.25 * (1 + np.exp(-gap / 0.017))
    assert result.weights["in->n"][0][0, 0] == pytest.approx(expected, rel=1e-14)


def test_coincident_events_of_one_input_count_together() -> None:
    assert learn([0.25] * 3, [0.28125]) == pytest.approx(0.1 + 0.03 * np.exp(-0.03125 / 0.017), rel=1e-14)
    assert learn([0.28125] * 3, [0.25]) == pytest.approx(0.1 - 0.06 * np.exp(-0.03125 / 0.034), rel=1e-14)
    events = {"in": inputs([0.28125] * 3), "teacher": inputs([0.25])}
    result = run(taught(0.1), events, 400, plasticity=RULE, record=["n.v"])
    assert result.records["n.v"][0][-1, 0] == pytest.approx(3 * result.weights["in->n"][0][0, 0], rel=1e-15)


def test_synapses_of_a_refractory_neuron_learn() -> None:
    events = {"in": inputs([0.28125]), "teacher": inputs([0.25])}
    result = run(taught(0.1, neuron=LIF(t_ref=0.1)), events, 400, plasticity=RULE, record=["n.v"])
    assert result.records["n.v"][0][-1, 0] == 0.0
    assert result.weights["in->n"][0][0, 0] == learn([0.28125], [0.25])


def test_parallel_synapses_and_targets_learn_on_their_own() -> None:
    delays = np.array([0.0, 3, 17, 3, 40]) * DT
    sparse = Sparse.from_triples([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], np.full(5, 0.1), (2, 2))
    network = taught(np.zeros((2, 2)))
    network = network.replace(projections=(Projection("in", "n", sparse, delays), network.projections[1]))
    events = {"in": inputs([0.25, 0.2578125], [0, 1], 2), "teacher": inputs([0.265625, 0.28125], [0, 1], 2)}
    weights = run(network, events, 400, plasticity=RULE).weights["in->n"][0]
    pre, post = (0.25, 0.25, 0.25, 0.2578125, 0.2578125), (0.265625, 0.265625, 0.28125, 0.28125, 0.265625)
    expected = [learn([a + d], [b]) for a, b, d in zip(pre, post, delays.tolist(), strict=True)]
    assert weights.tolist() == expected
    assert len(set(expected)) == 5


def rule_of(network: Network, rules: Any) -> dict[int, ReferenceRule]:
    return {
        network.projection_place(name): ReferenceRule(
            *(rule.tau_plus, rule.tau_minus, rule.a_plus, rule.a_minus, rule.w_min, rule.w_max),
            *(rule.bound == "multiplicative", rule.pairing == "nearest"),
        )
        for rule in rules
        for name in rule.projections
    }


def existing(network: Network, result: Result, name: str | int) -> tuple[Any, npt.NDArray[np.float64]]:
    synapses = network.projections[network.projection_place(name)].synapses(network.dt)
    return synapses, result.weights[name][0].reshape(-1)[synapses.index]


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_random_networks_learn_as_the_plain_definition_does(seed: int) -> None:
    network, events, initial = random_network(seed)
    result = run(network, events, 1200, initial=initial, plasticity=RULES)
    neurons, names, synapses, fed = plain(network, events, initial)
    places = rule_of(network, RULES)
    spikes, weights = simulate_plastic_reference(neurons, synapses, fed, 1200 * network.dt, places)
    same(result, sorted((names[n][0], time, names[n][1]) for time, n in spikes), 1e-11)
    assert len(spikes) > 100
    for name in result.weights:
        place = network.projection_place(name)
        first, found = existing(network, result, name)
        wanted = [w for w, synapse in zip(weights, synapses, strict=True) if synapse.projection == place]
        # spikes of this run and of the definition differ by some 1e-12 s, and learning makes more of it
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
        assert np.abs(found - first.weight).max() > 0.1


def replayed(rule: ReferenceRule, weight: float, pre: list[tuple[float, int]], post: list[float]) -> float:
    """Learn from given arrivals and spikes: arrivals come first."""
    for time, kind, count in sorted([(t, 0, c) for t, c in pre] + [(t, 1, 0) for t in post]):
        if kind == 0:
            weight = rule.depressed(weight, count, time, [t for t in post if t < time])
        else:
            weight = rule.potentiated(weight, time, [(t, c) for t, c in pre if t <= time])
    return weight


@pytest.mark.parametrize("seed", [1, 4])
def test_weights_are_those_of_the_pairs_of_the_run_s_own_spikes(seed: int) -> None:
    network, events, initial = random_network(seed)
    result = run(network, events, 1200, initial=initial, plasticity=RULES)
    trains = {name: [item.times[item.units == u] for u in range(6)] for name, item in result.spikes.items()}
    trains["in"] = [events.times[events.units == u] for u in range(6)]
    assert not result.notes["early"]
    rules, stop = rule_of(network, RULES), 1200 * network.dt
    for name in result.weights:
        place = network.projection_place(name)
        projection = network.projections[place]
        synapses, found = existing(network, result, name)
        sources = np.repeat(np.arange(6), np.diff(synapses.indptr))
        delay = np.asarray(projection.delay)
        for s, (source, target) in enumerate(zip(sources, synapses.target, strict=True)):
            own = delay[synapses.index[s]] if delay.ndim == 1 else np.broadcast_to(delay, (6, 6))[target, source]
            times, counts = np.unique(trains[projection.source][source], return_counts=True)
            pre = [(t + own, c) for t, c in zip(times.tolist(), counts.tolist(), strict=True) if t + own < stop]
            post = trains[projection.target][target].tolist()
            assert found[s] == pytest.approx(replayed(rules[place], synapses.weight[s], pre, post), abs=1e-12)


def recurrent(size: int = 60, seed: int = 3) -> tuple[Network, PairSTDP]:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.0, 3.0, (size, size)) * (rng.random((size, size)) < 0.3)
    neuron = CubaLIF(tau_mem=rng.uniform(0.01, 0.03, size), tau_syn=0.005, drive=rng.uniform(20, 70, size), t_ref=0.002)
    delay = rng.integers(4, 40, (size, size)) * DT / 2
    return (
        Network(
            (Population("n", size, neuron),),
            (Projection("n", "n", weight, delay), Projection("in", "n", rng.normal(0, 2, (size, 9)), 0.001)),
            (Input("in", 9),),
            None,
            DT,
        ),
        PairSTDP("n->n", a_plus=0.05, a_minus=0.06, w_max=3.0),
    )


def many(n: int = 5) -> Events:
    rng = np.random.default_rng(8)
    times = [np.sort(rng.integers(0, 512, 60) * DT / 2) for _ in range(n)]
    return Events.from_lists(times, [rng.integers(0, 9, 60) for _ in range(n)], 9, duration=0.25, sort=True)


def test_samples_learn_apart_on_any_number_of_threads() -> None:
    network, rule = recurrent()
    digest = network.digest()
    results = [run(network, many(), 256, plasticity=rule, threads=t, batch=b) for t, b in ((1, 1), (3, 1), (2, 4))]
    for other in results[1:]:
        assert other.spikes == results[0].spikes
        for a, b in zip(results[0].weights["n->n"], other.weights["n->n"], strict=True):
            np.testing.assert_array_equal(a, b)
    single = run(network, many().subset(np.array([2])), 256, plasticity=rule)
    np.testing.assert_array_equal(single.weights["n->n"][0], results[0].weights["n->n"][2])
    assert not np.array_equal(results[0].weights["n->n"][0], results[0].weights["n->n"][1])
    assert network.digest() == digest
    assert all(w.min() >= 0 and w.max() <= 3.0 for w in results[0].weights["n->n"])
    changed = network.projections[0].weight != results[0].weights["n->n"][0]
    assert changed.sum() > 500


def test_a_run_in_parts_learns_the_same_bits() -> None:
    network, rule = recurrent()
    events = many(2)
    whole = run(network, events, 256, plasticity=rule)
    cut = 128
    at = cut * DT
    parts: Any = [[], [], [], []]
    for b in range(2):
        a, e = int(events.offsets[b]), int(events.offsets[b + 1])
        time, unit = events.times[a:e], events.units[a:e]
        for k, chosen in enumerate((time < at, time >= at)):
            parts[2 * k].append(time[chosen] - k * at)
            parts[2 * k + 1].append(unit[chosen])
    early, late = (Events.from_lists(parts[k], parts[k + 1], 9, duration=at) for k in (0, 2))
    first = run(network, early, cut, plasticity=rule)
    second = run(network, late, 256 - cut, plasticity=rule, state=first.state)
    for a, b in zip(second.weights["n->n"], whole.weights["n->n"], strict=True):
        np.testing.assert_array_equal(a, b)
    found = [(n, t, u) for n, t, u in pairs(first)] + [(n, at + t, u) for n, t, u in pairs(second)]
    assert sorted(found) == sorted(pairs(whole))
    assert len(found) > 500


@pytest.mark.parametrize("seed", range(3))
def test_rules_that_change_nothing_leave_every_bit(seed: int) -> None:
    network, events, initial = random_network(seed)
    idle = PairSTDP(("lif->cuba", "exp->lif", 1), a_plus=0.0, a_minus=0.0, w_max=20, w_min=-20)
    options: dict[str, Any] = {"initial": initial, "record": ["cuba.v", "exp.i_exc"]}
    still = run(network, events, 1200, **options)
    plastic = run(network, events, 1200, plasticity=idle, **options)
    assert pairs(plastic) == pairs(still)
    np.testing.assert_array_equal(plastic.logits, still.logits)  # type: ignore[arg-type]
    for name in options["record"]:
        np.testing.assert_array_equal(plastic.records[name][0], still.records[name][0])
    for name, (weight,) in plastic.weights.items():
        stored = network.projections[network.projection_place(name)].weight
        np.testing.assert_array_equal(weight, stored.weight if isinstance(stored, Sparse) else stored)


def test_learned_weights_make_a_network() -> None:
    network, rule = recurrent()
    result = run(network, many(1), 256, plasticity=rule)
    learned = network.with_weights({"n->n": result.weights["n->n"][0]})
    assert learned != network
    np.testing.assert_array_equal(learned.projections[0].weight, result.weights["n->n"][0])  # type: ignore[arg-type]
    assert learned.projections[1] is network.projections[1]
    assert pairs(run(learned, many(1), 256)) != pairs(run(network, many(1), 256))
    assert network.with_weights({0: network.projections[0].weight}) == network  # type: ignore[dict-item]
    narrow = Sparse(np.array([0, 2, 3]), np.array([0, 1, 1], np.uint16), 0.5, (2, 2))
    sparse = Network((Population("n", 2, IF()),), (Projection("n", "n", narrow, 0.001),), (), None, DT)
    changed = sparse.with_weights({"n->n": [0.25, 0.5, 0.75]}).projections[0].weight
    assert isinstance(changed, Sparse)
    assert np.asarray(changed.weight).tolist() == [0.25, 0.5, 0.75]
    assert changed.target.dtype == np.uint16


def test_only_synapses_of_firing_neurons_are_visited() -> None:
    size = 400
    rng = np.random.default_rng(0)
    events = {"in": inputs([0.1, 0.2], [3, 3], size), "teacher": inputs([0.15], [7], size)}
    weight = rng.uniform(1e-4, 1e-3, (size, size))
    counts = run(taught(weight), events, 1000, plasticity=RULE).notes["counts"]
    assert counts["plastic_arrivals"] == 2 * size
    assert counts["plastic_visits"] == size


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"projections": ()}, "projections: expected at least one"),
        ({"projections": (1.5,)}, "projections: expected a name such as 'in->out' or a place, got 1.5"),
        ({"projections": None}, "projections: expected names or places, got NoneType"),
        ({"a_plus": float("nan")}, "a_plus: expected a finite number, got nan"),
        ({"a_minus": "1"}, "a_minus: expected a finite number, got '1'"),
        ({"tau_plus": 0.0}, "tau_plus: expected seconds above 0, got 0.0"),
        ({"w_min": 1.0}, "expected w_min < w_max, got 1.0 and 1.0"),
        ({"bound": "soft"}, "bound: expected one of .*, got 'soft'"),
        ({"pairing": "some"}, "pairing: expected one of .*, got 'some'"),
        ({"bound": "multiplicative", "a_plus": -1.0}, "multiplicative bounds need a_plus and a_minus of 0 or more"),
    ],
)
def test_rules_that_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        PairSTDP(**{"projections": "in->n", "a_plus": 0.1, "a_minus": 0.1, "w_max": 1.0, **change})


def rule(projections: Any = "in->n", **change: Any) -> PairSTDP:
    return PairSTDP(projections, **{"a_plus": 0.1, "a_minus": 0.1, "w_max": 1.0, **change})


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        (rule("n->m"), "no projection 'n->m'; it has"),
        (rule(7), "place of a projection: expected 0 to 1, got 7"),
        (rule(("in->n", 0)), "expected one rule, it is named twice: as 'in->n' and 0"),
        ((rule(), rule()), "expected one rule, it is named twice"),
        (rule(w_max=0.05), "weights from 0.1 to 0.1 do not lie in the bounds 0.0 to 0.05"),
        (("in->n",), "plasticity: expected PairSTDP rules, got str"),
    ],
)
def test_rules_that_do_not_fit_a_network(rules: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(taught(0.1), {"in": inputs([]), "teacher": inputs([])}, 10, plasticity=rules)


def test_networks_and_runs_that_cannot_learn_are_refused() -> None:
    events = {"in": inputs([]), "teacher": inputs([])}
    for options in ({"engine": "clock"}, {"engine": "event", "resolution": DT}):
        with pytest.raises(InputError, match="synapses learn in continuous time: use engine='event'"):
            simulate(taught(0.1), events, plasticity=RULE, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="target 'n' is LI, which never spikes"):
        run(driven(LI(), [[0.1]]), inputs([]), 10, plasticity=RULE)
    loop = Network((Population("n", 1, CubaLIF()),), (Projection("n", "n", np.full((1, 1), 0.1)),), (), None, DT)
    with pytest.raises(InputError, match="some loop of projections has no delay at all"):
        run(loop, None, 10, plasticity=rule("n->n"))
    twice = Network((Population("n", 1, IF()),), (Projection("n", "n", np.full((1, 1), 0.1), DT),) * 2, (), None, DT)
    with pytest.raises(InputError, match=r"2 projections are called 'n->n'; give one of \[0, 1\] instead"):
        run(twice, None, 10, plasticity=rule("n->n"))
    first = run(taught(0.1), events, 10, plasticity=RULE)
    for other in ((), rule()):
        with pytest.raises(InputError, match="state: comes from a run with other plasticity rules"):
            run(taught(0.1), events, 10, plasticity=other, state=first.state)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"n->m": [[1.0]]}, "no projection 'n->m'"),
        ({"in->n": [1.0]}, r"projection 'in->n': weight has shape \(1,\), expected \(1, 1\)"),
        ({"in->n": [[1.0]], 0: [[1.0]]}, "given by name and by place"),
        ({"in->n": [[np.nan]]}, "projection 'in->n': weight: expected finite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        taught(0.1).with_weights(weights)
