"""Pictures show what they are given, and their SVG fits on one page with others."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from snnsim import plots
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LI, LIF
from snnsim.plots.delays import strongest
from snnsim.plots.page import INK

DT = 0.01


def events(n_events: int, n_units: int, seed: int, duration: float = 0.5) -> Events:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, duration - 0.01, n_events))
    return Events.from_lists([times], [rng.integers(0, n_units, n_events)], n_units=n_units, duration=duration)


def network(longest: int, taps: int = 1, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, longest + 1, (taps, 12, 8))
    into = [Projection("sound", "hidden", rng.normal(size=(12, 8)), steps[k] * DT) for k in range(taps)]
    out = Projection("hidden", "readout", rng.normal(size=(3, 12)))
    populations = (Population("hidden", 12, LIF(tau_mem=0.02)), Population("readout", 3, LI(tau_mem=0.02)))
    return Network(populations, (*into, out), (Input("sound", 8),), None, DT)


def svg(figure: object, name: str = "one") -> str:
    text = plots.to_svg(figure, name, 'a < b & "c"')  # type: ignore[arg-type]
    ElementTree.fromstring(text)
    return text


def lines(figure: object) -> dict[str, np.ndarray]:
    drawn = [line for axes in figure.axes for line in axes.get_lines()]  # type: ignore[attr-defined]
    return {line.get_label(): np.asarray(line.get_ydata()) for line in drawn}


def test_learning_curves_draw_every_split() -> None:
    figure = plots.learning_curves({"training": [2.0, 1.0]}, {"training": [0.2, 0.6], "validation": [0.1, 0.5]})
    assert lines(figure)["validation"].tolist() == [0.1, 0.5]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy"]


def test_sample_draws_each_spike_once_and_marks_true_and_predicted() -> None:
    layers = {"sound": events(40, 8, 0), "hidden": events(7, 12, 1)}
    trace = np.random.default_rng(2).normal(size=(50, 3))
    figure = plots.sample(layers, trace=trace, dt=DT, class_names=("a", "b", "c"), label=1, prediction=2)
    strokes = [np.asarray(axes.get_lines()[0].get_xdata()) for axes in figure.axes[:2]]
    assert [len(x) // 3 for x in strokes] == [40, 7]
    np.testing.assert_allclose(strokes[0][0::3], layers["sound"].times * 1e3)
    assert {"b (true)", "c (predicted)"} <= set(lines(figure))
    assert "40 spikes, 8 units" in svg(figure)


def test_sample_names_one_class_when_the_network_is_right() -> None:
    figure = plots.sample({"sound": events(3, 8, 0)}, trace=np.zeros((5, 3)), dt=DT, label=1, prediction=1)
    assert "1 (true and predicted)" in lines(figure)


def test_sample_wants_one_sample() -> None:
    two = Events.from_lists([[0.1], [0.1]], [[0], [0]], n_units=2)
    with pytest.raises(InputError, match="holds 2 samples, expected one"):
        plots.sample({"sound": two})


def test_membrane_traces_choose_the_most_active_neurons() -> None:
    v = np.zeros((20, 4))
    fired = Events.from_lists([[0.01, 0.02, 0.05]], [[2, 2, 3]], n_units=4, duration=0.2)
    figure = plots.membrane_traces(v, DT, spikes=fired, units=None, threshold=1.0)
    assert [axes.get_ylabel() for axes in figure.axes][:2] == ["neuron 2", "neuron 3"]
    with pytest.raises(InputError, match="shape"):
        plots.membrane_traces(np.zeros(3), DT)


def test_delay_histogram_counts_every_synapse() -> None:
    after, before = network(9, taps=2, seed=1), network(5, taps=2, seed=2)
    figure = plots.delay_histogram(after, before)
    patches = figure.axes[0].patches
    assert [int(np.sum(patch.get_data().values)) for patch in patches] == [2 * 96, 2 * 96]
    np.testing.assert_array_equal(
        patches[1].get_data().values,
        np.bincount(np.concatenate([p.synapses(DT).delay_steps for p in after.projections[:2]]), minlength=10),
    )
    assert len(figure.axes) == 1  # the projection without delays has no panel


def test_pictures_of_delays_refuse_a_network_without() -> None:
    for draw in (plots.delay_histogram, plots.delay_map):
        with pytest.raises(InputError, match="no delays"):
            draw(network(0))


def test_delay_map_shows_the_strongest_tap() -> None:
    net = network(9, taps=2)
    delay, weight = strongest(net, "sound->hidden")
    first, second = (np.asarray(p.weight) for p in net.projections[:2])
    stronger = np.where(np.abs(first) >= np.abs(second), first, second)
    np.testing.assert_array_equal(np.abs(weight), np.abs(stronger))
    steps = [p.delay_steps(DT) for p in net.projections[:2]]
    np.testing.assert_allclose(delay, np.where(np.abs(first) > np.abs(second), *steps) * DT * 1e3)
    assert "weight against delay" in svg(plots.delay_map(net))


def test_rates_name_the_silent_share() -> None:
    figure = plots.rates({"hidden": [0.0, 4.0, 0.0, 8.0]})
    ((label, drawn),) = [item for item in lines(figure).items() if not item[0].startswith("_")]
    assert label == "hidden: mean 3.0 Hz, 50% silent"
    assert drawn.tolist() == [8.0, 4.0, 0.0, 0.0]


def test_confusion_writes_counts() -> None:
    figure = plots.confusion([[3, 1], [0, 2]], ("yes", "no"))
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "2"]
    assert figure.axes[0].get_title(loc="left") == "5 of 6 right"
    with pytest.raises(InputError, match="square"):
        plots.confusion(np.zeros((2, 3)))


def test_svg_ids_do_not_meet_and_all_references_are_inside() -> None:
    pages = [svg(plots.rates({"a": [1.0, 2.0]}), name) for name in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', page)) for page in pages]
    assert ids[0]
    assert not ids[0] & ids[1]
    for page, own in zip(pages, ids, strict=True):
        used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
        assert used <= own


def test_svg_ink_follows_the_page() -> None:
    text = svg(plots.rates({"a": [1.0, 2.0]}))
    assert INK not in text
    assert "currentColor" in text
    assert f"var(--plot-blue, {plots.COLOURS['blue']})" in text
    assert 'aria-label="a &lt; b &amp; &quot;c&quot;"' in text


def test_svg_is_the_same_every_time() -> None:
    assert svg(plots.delay_map(network(5))) == svg(plots.delay_map(network(5)))


def test_drawing_leaves_the_callers_settings() -> None:
    before = dict(mpl.rcParams)
    plots.to_png(plots.rates({"a": [1.0]}))
    assert dict(mpl.rcParams) == before


def test_png_is_a_picture() -> None:
    data = plots.to_png(plots.rates({"a": [1.0]}), dpi=50)
    assert data.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(data[16:20], "big") == 270  # 5.4 inches
