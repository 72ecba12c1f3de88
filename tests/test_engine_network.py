"""What a Network accepts, refuses and promises."""

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLIF


def small(**changes):
    weight = np.arange(6.0).reshape(2, 3)
    parts = {
        "populations": (Population("a", 2, LIF()), Population("out", 2, LI())),
        "projections": (Projection("in", "a", weight, 0.003), Projection("a", "out", np.ones((2, 2)))),
        "inputs": (Input("in", 3),),
        "readout": Readout("out"),
        "dt": 0.001,
    }
    return Network(**{**parts, **changes})


def ring(delay, neuron):
    ones = np.ones((1, 1))
    pops = (Population("a", 1, neuron), Population("b", 1, neuron))
    return Network(pops, (Projection("a", "b", ones), Projection("b", "a", ones, delay)), (), None, 0.001)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Input("", 3), "1 to 200 printable"),
        (lambda: Input("a->b", 3), "without '->'"),
        (lambda: Input("a", 0), "size: expected 1"),
        (lambda: Input("a", 2.0), "expected an integer"),
        (lambda: Population("a", 3, LIF(tau_mem=np.ones(2))), "are for 2 neurons, its size is 3"),
        (lambda: Population("a", 3, "LIF"), "expected a record such as LIF"),
        (lambda: Population("a", 3, LIF(), start_step=5, stop_step=5), "stop_step: expected 6"),
        (lambda: Projection("a", "b", np.ones(3)), "expected \\(n_target, n_source\\)"),
        (lambda: Projection("a", "b", np.ones((2, 3)), np.zeros(3)), "does not say whose delays"),
        (lambda: Projection("a", "b", np.ones((2, 3)), np.zeros((3, 2))), "delay has shape \\(3, 2\\)"),
        (lambda: Projection("a", "b", np.ones((2, 3)), -0.1), "non-negative"),
        (lambda: Projection("a", "b", np.full((2, 3), np.nan)), "finite numbers, got nan at \\[0, 0\\]"),
        (lambda: Projection("a", "b", [["x"]]), "expected float64 numbers"),
        (lambda: Sparse([0, 1], [0], [1.0], (2, 2)), "expected \\(3,\\) for 2 sources"),
        (lambda: Sparse([0, 2, 1], [0], [1.0], (2, 2)), "must rise"),
        (lambda: Sparse([0, 1, 1], [2], [1.0], (2, 2)), "targets must lie in 0..1"),
        (lambda: Sparse([0, 1, 1], [0], [np.inf], (2, 2)), "finite"),
        (lambda: Readout("a", reduce="sum"), "expected one of"),
        (lambda: Readout("a", reduce="count"), "variable='spikes'"),
        (lambda: small(dt=0.0), "positive number of seconds"),
        (lambda: small(notes={"x": np.ones(2)}), "JSON can hold"),
        (lambda: small(populations=()), "at least one"),
        (lambda: small(populations=Population("a", 2, LIF())), "write \\(population,\\)"),
        (lambda: small(inputs=(Input("a", 3),)), "'a' is used twice"),
        (lambda: small(readout=Readout("b")), "'b' is not in the network"),
        (lambda: small(readout=Readout("out", "spikes")), "never spikes"),
        (lambda: small(projections=(Projection("x", "a", np.ones((2, 3))),)), "source 'x' is not in the network"),
        (lambda: small(projections=(Projection("a", "in", np.ones((3, 2))),)), "target 'in' is an input"),
        (lambda: small(projections=(Projection("out", "a", np.ones((2, 2))),)), "is LI, which never spikes"),
        (lambda: small(projections=(Projection("in", "a", np.ones((3, 2))),)), "shape \\(3, 2\\), expected \\(2, 3\\)"),
        (lambda: small(projections=(Projection("in", "a", np.ones((2, 3)), 1e9),)), "expected at most"),
        (lambda: small(populations=(Population("a", 2, LIF.from_step(dt=0.002, beta=0.5)),)), "run it at its own dt"),
        (lambda: ring(0.0, LIF()), "populations (a -> b -> a|b -> a -> b) wait for one another"),
        (lambda: ring(0.0004, LIF()), "delay 0 after rounding"),
        (lambda: small().population("z"), "no population 'z'"),
        (lambda: LIF(beta=0.5), "use LIF.from_step"),
        (lambda: LIF(tau_mem=None), "got None"),
        (lambda: AdaptiveLIF(adapt_threshold=-1), "acts on the membrane"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_order_follows_delay_0_projections_into_delta_populations():
    one = np.ones((1, 1))
    pops = tuple(Population(name, 1, LIF()) for name in "abc")
    net = Network(pops, (Projection("c", "a", one), Projection("a", "b", one, 0.001)), (), None, 0.001)
    assert [item.name for item in net.order()] == ["b", "c", "a"]


def test_cycle_through_a_current_population_or_a_delay_is_accepted():
    assert ring(0.001, LIF()).order()
    assert ring(0.0, CubaLIF()).order()


def test_cycle_over_absent_synapses_is_no_cycle():
    pops = (Population("a", 2, IF()),)
    delay = np.array([[0.001, 0.0], [0.0, 0.001]])
    assert Network(pops, (Projection("a", "a", np.eye(2), delay),), (), None, 0.001).order()
    with pytest.raises(InputError, match="a -> a"):
        Network(pops, (Projection("a", "a", np.ones((2, 2)), delay),), (), None, 0.001)


def test_network_is_immutable_and_copies_what_it_is_given():
    weight = np.ones((2, 3))
    projection = Projection("in", "a", weight)
    weight[:] = 5
    assert projection.weight.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        projection.weight[0, 0] = 2


def test_equality_and_digest_see_every_number_but_not_the_notes():
    net = small()
    assert net == small(notes={"from": "elsewhere"})
    assert hash(net) == hash(small())
    weight = np.arange(6.0).reshape(2, 3)
    weight[1, 1] = np.nextafter(weight[1, 1], 9)
    changed = small(projections=(Projection("in", "a", weight, 0.003), net.projections[1]))
    assert changed != net
    assert small(dt=0.002) != net
    assert small(projections=net.projections[::-1]) != net


def test_dense_and_sparse_synapses_agree():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(4, 5)) * (rng.random((4, 5)) < 0.5)
    delay = rng.integers(0, 9, (4, 5)) * 0.001
    dense = Projection("a", "b", weight, delay).synapses(0.001)
    source, target = np.nonzero(weight.T)
    sparse = Sparse.from_triples(source, target, weight[target, source], (4, 5))
    for delays in (delay, delay[target, source]):
        other = Projection("a", "b", sparse, delays).synapses(0.001)
        for name in ("indptr", "target", "weight", "delay_steps"):
            assert np.array_equal(getattr(dense, name), getattr(other, name)), name
    assert np.array_equal(weight.reshape(-1)[dense.index], dense.weight)


def test_delay_shapes_mean_axonal_and_dendritic():
    weight = np.ones((2, 3))
    axonal = Projection("a", "b", weight, np.array([[0.001, 0.002, 0.003]])).synapses(0.001)
    assert axonal.delay_steps.tolist() == [1, 1, 2, 2, 3, 3]
    dendritic = Projection("a", "b", weight, np.array([[0.001], [0.002]])).synapses(0.001)
    assert dendritic.delay_steps.tolist() == [1, 2, 1, 2, 1, 2]


def test_delays_round_to_even_steps_at_ties():
    steps = Projection("a", "b", np.ones((1, 4)), np.array([[0.5, 1.5, 2.5, 2.51]])).delay_steps(1.0)
    assert steps.tolist() == [[0, 2, 2, 3]]
