"""Spatial learning through time keeps no sequence, with delays or without."""

from __future__ import annotations

import pytest
import torch
from kept_memory import assert_flat, kept

from snnsim.learning import BPTT, SLTT, SLTTK
from snnsim.learning.fused_stages import fits
from snnsim.nn.model import SpikingModel, build_model
from snnsim.recipes import load_recipe
from snnsim.training.memory import expected_memory, memory_warning

PLAIN = ["model.batch_norm=false", "model.dropout=0.0", "model.connection.kind='linear'", "model.tail_steps=0"]


def make(changes: list[str], n_inputs: int = 70) -> SpikingModel:
    recipe = load_recipe("shd-dcls", [*PLAIN, *changes])
    return build_model(recipe.model, n_inputs, 20, recipe.data.dt, 0).train()


@pytest.mark.parametrize("events", [False, True], ids=["stages", "kernels"])
def test_256_steps_take_the_memory_of_4(events: bool) -> None:
    model = make(["model.hidden=[64, 64, 64]"])
    model.blocks[0].connection.formulation = "events" if events else "dense"
    assert fits(model) is events
    for rule in (SLTT(), SLTT(two_pass=True)):
        kind = "cross_entropy" if rule == SLTT(two_pass=True) else "per_step"
        kept(rule, model, 4, kind, batch=128)
        four, twelve, many = (kept(rule, model, steps, kind, batch=128) for steps in (4, 12, 256))
        assert many.graphs <= 1.05 * four.graphs, rule
        assert events or four.graphs > 4 * 128 * 64 * 4
        assert_flat(twelve, many, 244 * 128 * 192 * 4)  # arrays that are alive from the third stretch on
    few, many = (kept(rule, model, 256, batch=128) for rule in (SLTTK(26), SLTT()))
    assert few.arrays + few.graphs <= 1.05 * (many.arrays + many.graphs)
    assert kept(BPTT(), model, 256, batch=8).graphs > 20 * kept(BPTT(), model, 4, batch=8).graphs


@pytest.mark.parametrize(("hidden", "chunk"), [([32], None), ([24, 24], 4)], ids=["one-layer", "two-layers"])
def test_1024_steps_with_delays_take_the_memory_of_64(hidden: list[int], chunk: int | None) -> None:
    """Stretches of the longest delay for every delay layer above wait for errors; that many fit into 64 steps."""
    changes = [f"model.hidden={hidden}", "model.connection.kind='delayed'", "model.connection.max_delay=0.25"]
    model, rule = make(changes), SLTT(chunk_steps=chunk)
    assert model.delay_layers()[0].n_delays == 25
    kept(rule, model, 64, batch=64)
    short, long = (kept(rule, model, steps, batch=64) for steps in (64, 1024))
    assert_flat(short, long, 960 * 64 * sum(hidden) * 4)


def test_a_run_says_what_it_needs_and_warns_if_there_is_less() -> None:
    recipe = load_recipe("shd-dcls", [*PLAIN, "model.hidden=[512, 512, 512]"])
    model = make(["model.hidden=[512, 512, 512]"], 700)
    expected = expected_memory(model, recipe, 1000, 128)
    assert list(expected) == ["bptt", "sltt"]
    assert memory_warning(expected, 1 << 40) is None
    words = memory_warning(expected, 1 << 30)
    assert words is not None
    assert "GB with bptt, 1.1 GB are free; train.learning = 'sltt' needs" in words
    assert expected_memory(torch.nn.Linear(2, 2), recipe, 10, 1) == {}
