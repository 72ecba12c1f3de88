"""Limits profiles are strict files; a network is checked against them layer by layer."""

import copy
import json
import re
from importlib import resources

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.integer_laws import LAWS
from snnsim.limits import BASES, FIELDS, load_profile, profile_names, read_profile
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.target_check import check, near_grid

DT = 0.001
TEXT = (resources.files("snnsim.limits") / "loihi2.json").read_text(encoding="utf-8")


def chain(neuron=None, *, n_in=8, n_hidden=10, n_out=4, delay=0.002, out=None, weight=0.5):
    out = out or LI()
    return Network(
        populations=(Population("hidden", n_hidden, neuron or LIF()), Population("out", n_out, out)),
        projections=(
            Projection("in", "hidden", np.full((n_hidden, n_in), weight), delay),
            Projection("hidden", "out", np.full((n_out, n_hidden), weight), delay),
        ),
        inputs=(Input("in", n_in),),
        readout=Readout("out", variable="spikes" if out.spiking else "v", reduce="mean"),
        dt=DT,
    )


def of(found, subject):
    return [item for item in found if item.subject == subject]


def limited(**figures):
    """The profile of Loihi 2 with some figures changed."""
    value = json.loads(TEXT)
    for name, figure in figures.items():
        value["figures"][name] = {"value": figure, "basis": "source", "source": "lava"}
    cited = {item.get("source") for item in value["figures"].values()}
    value["sources"] = {name: text for name, text in value["sources"].items() if name in cited}
    return read_profile(json.dumps(value))


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_says_where_its_figures_come_from(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.figures) == set(FIELDS)
    for figure in profile.figures.values():
        assert figure.basis in BASES
        assert bool(figure.source) == (figure.basis != "unknown")
    if profile.law is not None:
        low, high = LAWS[profile.law].weight
        assert low <= profile.weight_low < profile.weight_high <= high
        assert profile.input_delay >= LAWS[profile.law].input_delay
        assert profile.min_delay >= LAWS[profile.law].delay


def test_the_profiles_are_those_promised():
    assert set(profile_names()) == {
        *("loihi", "loihi2", "xylo-audio2", "speck", "spinnaker", "spinnaker2", "truenorth", "odin"),
        *("sana-fe-loihi", "fixed", "fixed8"),
    }


def test_a_profile_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(TEXT.replace('"name": "loihi2"', '"name": "mine"'))
    assert load_profile(path).name == "mine"
    assert check(chain(), path).profile == "mine"
    with pytest.raises(InputError, match="cannot be read"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(InputError, match="expected one of fixed, fixed8, loihi, loihi2"):
        load_profile("loihi7")


def edited(change):
    value = copy.deepcopy(json.loads(TEXT))
    change(value)
    return json.dumps(value)


def set_figure(name, **values):
    return lambda value: value["figures"].update({name: {"value": None, "basis": "source", "source": "lava"} | values})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not readable JSON"),
        ("[]", "expected an object, got list"),
        ('{"schema": 1, "schema": 1}', "'schema' stands twice"),
        (TEXT.replace("24,", "NaN,", 1), "NaN is no figure"),
        (edited(lambda v: v.update(schema=2)), "schema: expected 1"),
        (edited(lambda v: v.pop("law")), "law: is missing"),
        (edited(lambda v: v.update(law="loihi3")), "law: expected null"),
        (edited(lambda v: v.update(colour="red")), "colour: is not known"),
        (edited(lambda v: v.update(name=" ")), "name: expected text"),
        (edited(lambda v: v.update(remarks="none")), "remarks: expected a list"),
        (edited(lambda v: v["figures"].pop("max_delay")), "figures.max_delay: is missing"),
        (edited(lambda v: v["figures"].update(max_weight={})), "figures.max_weight: is not known"),
        (edited(lambda v: v["sources"].update(other="a book")), "'other' is cited by no figure"),
        (edited(set_figure("max_delay", value=63.0)), "max_delay: expected null or a whole number"),
        (edited(set_figure("max_delay", value=True)), "max_delay: expected null or a whole number"),
        (edited(set_figure("cores", value=0)), "cores: expected null or a whole number of at least 1"),
        (edited(set_figure("weight_even", value=1)), "weight_even: expected null, true or false"),
        (edited(set_figure("comparator", value="=>")), "comparator: expected null or one of"),
        (edited(set_figure("reset", value=["soft"])), "reset: expected some of"),
        (edited(set_figure("reset", value=["zero", "zero"])), "reset: expected some of"),
        (edited(set_figure("reset", value="zero")), "reset: expected some of"),
        (edited(set_figure("cores", value=9, basis="guess")), "basis: expected one of"),
        (edited(set_figure("cores", value=9, source="hearsay")), "source: expected one of"),
        (edited(lambda v: v["figures"].update(cores={"value": 9, "basis": "unknown"})), "has the value null"),
        (edited(set_figure("min_delay", value=64)), "64 lies above max_delay, 63"),
        (edited(set_figure("comparator", value=None)), "a profile with a law needs it"),
        (edited(set_figure("bias_bits", value=None)), "bias_bits: a profile with a law needs it"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(text, match):
    with pytest.raises(InputError, match=match):
        read_profile(text)


def test_a_network_that_fits_says_what_changes():
    found = check(chain(LIF(tau_mem=0.01)), "loihi2")
    assert found.fits
    assert found.latency == {"hidden": 0, "out": 0}
    assert [item.layer for item in of(found.changes, "weight_bits")] == ["in->hidden", "hidden->out"]
    assert "even numbers of 8 bits" in found.changes[-1].what
    assert of(found.changes, "comparator")[0].sentence() == (
        "hidden: fires at v >= threshold, the target at v > threshold: ties differ."
    )
    error = of(found.changes, "decay_grid")[0]
    assert "beta moves by up to" in error.what
    assert (found.cores, [item.cores for item in found.layers]) == (2, [1, 1])
    assert found.layers[0].fan_in == 8
    assert found.sentences()[0] == "fits loihi2"
    assert json.loads(json.dumps(found.to_json()))["fits"] is True


def test_a_delay_of_63_in_the_field_is_refused():
    assert check(chain(delay=0.063), "loihi2").fits
    found = check(chain(delay=0.064), "loihi2")
    late = of(found.violations, "max_delay")
    assert [item.layer for item in late] == ["in->hidden", "hidden->out"]
    assert late[0].count == 80
    assert late[0].indices == ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0))
    assert "up to 64 steps there, the target has up to 63" in late[0].what
    assert "at most 63 steps" in late[0].remedy


def test_a_layer_without_delay_comes_a_step_later_and_takes_one_from_the_longest():
    found = check(chain(delay=0.0), "loihi2")
    assert found.latency == {"hidden": 1, "out": 2}
    assert [item.what for item in of(found.changes, "layer_latency")] == [
        "spikes come 1 step later",
        "spikes come 2 steps later",
    ]
    delay = np.zeros((10, 8))
    delay[3, 5] = 0.063
    network = chain(delay=0.0)
    network = network.replace(
        projections=(Projection("in", "hidden", np.full((10, 8), 0.5), delay), network.projections[1])
    )
    late = of(check(network, "loihi2").violations, "max_delay")
    assert (late[0].indices, late[0].count, late[0].layer) == (((3, 5),), 1, "in->hidden")


@pytest.mark.parametrize(
    ("network", "profile", "subject", "match"),
    [
        (chain(LIF(reset="subtract")), "loihi2", "reset", 'train with reset = "zero"'),
        (chain(CubaLIF(), delay=0.0), "xylo-audio2", "reset", 'train with reset = "subtract"'),
        (chain(LIF(v_reset=-0.2)), "loihi2", "reset_value", "reset values up to 0.2"),
        (chain(LIF(t_ref=0.003)), "loihi2", "refractory", "up to 3 steps"),
        (chain(LIF(reset="subtract", reset_amount=0.4)), limited(reset=["subtract"]), "reset_amount", "another amount"),
        (chain(LIF(tau_mem=np.linspace(0.01, 0.02, 10))), "loihi2", "decay_per", "train one time constant a layer"),
        (chain(LIF(v_threshold=-0.1, v_reset=-1.0)), limited(reset_value=True), "threshold", "must be positive"),
        (chain(AdaptiveLIF()), "loihi2", "neurons", "train with LIF or CubaLIF"),
        (chain(LIF()), "xylo-audio2", "neurons", "train with CubaLIF"),
        (chain(LIF()), "speck", "neurons", "it has no leak; train with IF"),
        (chain(CubaLIF()), "sana-fe-loihi", "neurons", "it has no synaptic current; train with LIF"),
        (chain(IF()), "truenorth", "neurons", "train with a spiking readout"),
        (chain(CubaLIF()), "xylo-audio2", "delay_per", "train without delays"),
        (chain(n_in=17), "xylo-audio2", "max_inputs", "17 input channels, the target has 16"),
        (chain(n_out=9), "xylo-audio2", "max_outputs", "9 output neurons .out., the target has 8"),
        (chain(n_hidden=1001), "xylo-audio2", "max_hidden", "1001 neurons beside the outputs"),
        (chain(n_hidden=300), "odin", "max_neurons", "304 neurons, the target has 256"),
        (chain(n_in=300), "odin", "max_fan_in", "fan-in of up to 300, the target 256"),
        (chain(n_hidden=600), "truenorth", "max_fan_in", "fan-in of up to 600"),
        (chain(IF(), n_out=300, out=IF()), "truenorth", "max_fan_out", "fan-out of up to 300"),
        (chain(n_hidden=40), limited(neurons_per_core=5, cores=8), "cores", "needs 9 cores, the target has 8: hidden"),
        (chain(n_in=40), limited(synapses_per_core=39), "synapses_per_core", "a neuron has 40 synapses"),
        (chain(n_in=40), limited(max_synapses=400), "max_synapses", "440 synapses, the target has 400"),
    ],
)
def test_what_a_target_cannot_hold_is_refused_with_what_to_do(network, profile, subject, match):
    found = check(network, profile)
    assert not found.fits
    violations = of(found.violations, subject)
    assert violations

    assert any(re.search(match, item.sentence()) for item in violations), [item.sentence() for item in violations]


def test_axonal_delays_and_loops():
    rng = np.random.default_rng(0)
    axon = rng.integers(1, 9, (1, 8)) * DT
    network = chain(IF(), out=IF(), delay=0.002)
    weight = np.full((10, 8), 0.5)
    even = network.replace(projections=(Projection("in", "hidden", weight, axon), network.projections[1]))
    assert check(even, "truenorth").fits
    each = rng.integers(1, 9, (10, 8)) * DT
    uneven = network.replace(projections=(Projection("in", "hidden", weight, each), network.projections[1]))
    assert of(check(uneven, "truenorth").violations, "delay_per")[0].indices == (0, 1, 2, 3, 4)
    loop = chain(IF(), out=IF(), delay=0.0)
    loop = loop.replace(projections=(*loop.projections, Projection("hidden", "hidden", np.ones((10, 10)), DT)))
    assert check(chain(IF(), out=IF(), delay=0.0), "speck").fits
    assert of(check(loop, "speck").violations, "recurrent")[0].layer == "hidden"


def test_populations_that_start_late_or_stop_are_refused():
    network = chain()
    network = network.replace(
        populations=(Population("hidden", 10, LIF(), stop_step=50), Population("out", 4, LI(), start_step=2))
    )
    assert [item.layer for item in of(check(network, "loihi2").violations, "start_step")] == ["hidden", "out"]


def test_sparse_weights_are_counted_by_their_synapses():
    sparse = Sparse.from_triples([0, 0, 1], [2, 2, 1], [0.5, 0.25, 0.0], (3, 2))
    network = Network(
        populations=(Population("p", 3, LIF()),),
        projections=(Projection("in", "p", sparse, 0.001),),
        inputs=(Input("in", 2),),
        readout=None,
        dt=DT,
    )
    needs = check(network, "loihi").layers[0]
    assert (needs.synapses, needs.fan_in) == (2, 2)


def test_decays_go_to_the_nearest_point_of_the_grid():
    pow2 = load_profile("xylo-audio2")
    decays = np.array([0.0, 0.3, 0.7, 0.74, 0.9375, 0.95])
    np.testing.assert_array_equal(near_grid(decays, pow2), [0.0, 0.5, 0.75, 0.75, 0.9375, 0.9375])
    linear = near_grid(np.array([1 / 3]), load_profile("loihi2"))
    assert linear[0] == 1365 / 4096


def test_a_target_that_counts_no_coincidences_says_so():
    assert of(check(chain(), "loihi").changes, "graded_input")
    assert not of(check(chain(), "loihi2").changes, "graded_input")
