"""Spatial learning through time keeps no sequence, with delays or without."""

from __future__ import annotations

import pytest
import torch
from kept_memory import Saved, needs

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
        needs(rule, model, 4, kind, batch=128)
        graphs = []
        for steps in (4, 256):
            needs(rule, model, steps, kind, batch=128)
            graphs.append(Saved.peak)
        assert graphs[1] <= 1.05 * graphs[0], (rule, graphs)
        assert events or graphs[0] > 4 * 128 * 64 * 4
        # everything that is alive, from the third stretch on
        short, long = (needs(rule, model, steps, kind, batch=128) for steps in (12, 256))
        assert long <= 1.05 * short, (rule, short, long)
    assert needs(SLTTK(26), model, 256, batch=128) <= 1.05 * needs(SLTT(), model, 256, batch=128)
    for steps in (4, 256):
        needs(BPTT(), model, steps, batch=8)
        graphs.append(Saved.peak)
    assert graphs[-1] > 20 * graphs[-2]


@pytest.mark.parametrize(("hidden", "chunk"), [([32], None), ([24, 24], 4)], ids=["one-layer", "two-layers"])
def test_1024_steps_with_delays_take_the_memory_of_64(hidden: list[int], chunk: int | None) -> None:
    """Stretches of the longest delay for every delay layer above wait for errors; that many fit into 64 steps."""
    changes = [f"model.hidden={hidden}", "model.connection.kind='delayed'", "model.connection.max_delay=0.25"]
    model, rule = make(changes), SLTT(chunk_steps=chunk)
    assert model.delay_layers()[0].n_delays == 25
    needs(rule, model, 64, batch=64)
    short, long = (needs(rule, model, steps, batch=64) for steps in (64, 1024))
    assert long <= 1.05 * short, (short, long)


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
