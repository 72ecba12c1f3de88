"""Rate-targeted initialisation: no layer of a fresh network is silent, and nothing else changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.initialise import LayerRate, initialise_rates
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent


def model(norm: bool, scale: float = 1.0) -> SpikingModel:
    generator = torch.Generator().manual_seed(0)
    neurons = [
        LIF(30, dt=0.01),
        CubaLIF(30, dt=0.01, t_ref=0.01),
        Recurrent(AdaptiveLIF(30, dt=0.01, adapt_spike=0.1), generator=generator),
    ]
    blocks = []
    for index, neuron in enumerate(neurons):
        connection = DelayedLinear(30, 30, max_delay_steps=4, generator=generator)
        if index == 0:
            connection = Linear(30, 30, bias=True, generator=generator)  # type: ignore[assignment]
        with torch.no_grad():
            connection.weight.mul_(scale)
        blocks.append(
            Block(connection, neuron, norm=BatchNormTime(30) if norm else None, dropout=SequenceDropout(0.4, index))
        )
    readout = ReadoutBlock(Linear(30, 4, generator=generator), LI(4, dt=0.01))
    return SpikingModel(blocks, readout, dt=0.01)


def batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(40, 16, 30, generator=generator) < 0.05).float()


@pytest.mark.parametrize(("norm", "scale"), [(True, 1.0), (False, 0.01), (False, 20.0)])
def test_every_layer_reaches_the_target(norm: bool, scale: float) -> None:
    net = model(norm, scale)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    results = initialise_rates(net, batch(), target=0.08, tolerance=0.3)
    assert len(results) == 3
    assert all(0.08 / 1.3 <= item.after <= 0.08 * 1.3 for item in results)
    assert any(item.factor != 1.0 for item in results)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    allowed = {f"blocks.{index}.{'norm' if norm else 'connection'}.weight" for index in range(3)}
    assert changed
    assert changed <= allowed
    assert all(module.training for module in net.modules())
    for block in net.blocks:
        block.dropout = None
    rates = net(batch()).rates
    torch.testing.assert_close(
        rates, torch.tensor([item.after for item in results], dtype=torch.float64), rtol=1e-3, atol=1e-4
    )


def test_a_layer_in_range_is_left_alone() -> None:
    net = model(True)
    initialise_rates(net, batch(), target=0.08, tolerance=0.3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    again = initialise_rates(net, batch(), target=0.08, tolerance=0.3)
    assert all(item.factor == 1.0 for item in again)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_only_valid_steps_count() -> None:
    x = torch.cat([batch(), torch.zeros(200, 16, 30)])
    mask = (torch.arange(240) < 40)[:, None].expand(240, 16).contiguous()
    short = initialise_rates(model(True), batch(), Context(mask=mask[:40]), target=0.08)
    long = initialise_rates(model(True), x, Context(mask=mask), target=0.08)
    for a, b in zip(short, long, strict=True):
        assert a.after == pytest.approx(b.after, rel=0.02)


def test_a_silent_input_is_named() -> None:
    net = model(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=r"hidden layer 1 does not reach 0\.05 spikes a neuron-step"):
        initialise_rates(net, torch.zeros(10, 4, 30))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    silent = initialise_rates(net, torch.zeros(10, 4, 30), nearest=True)
    assert all(item.after == 0 and item.factor == 1.0 for item in silent)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(InputError, match="expected target in"):
        initialise_rates(net, batch(), target=1.5)


def test_a_rate_out_of_reach_gives_the_nearest() -> None:
    x = torch.zeros(40, 16, 30)
    x[0] = 1.0  # one volley: no neuron of the first layer fires in more than some of 40 steps
    with pytest.raises(InputError, match="hidden layer 1 does not reach"):
        initialise_rates(model(False), x, target=0.8, tolerance=0.1)
    net = model(False)
    best = initialise_rates(net, x, target=0.8, tolerance=0.1, nearest=True)[0]
    assert 0 < best.before < best.after < 0.72
    assert torch.equal(net.blocks[0].connection.weight, model(False).blocks[0].connection.weight * best.factor)


def test_parts_of_a_batch_find_the_factors_of_the_whole() -> None:
    """Without batch norm, whose statistics need the other processes, each part decides by the summed counts."""
    x = batch()
    whole = initialise_rates(model(False, 0.01), x, target=0.08)
    parts = [x[:, :5], x[:, 5:]]
    barrier, sums = threading.Barrier(2), [[0.0], [0.0]]

    def work(rank: int) -> list[LayerRate]:
        def total(values: list[float]) -> list[float]:
            sums[rank] = values
            barrier.wait()
            result = [a + b for a, b in zip(*sums, strict=True)]
            barrier.wait()
            return result

        return initialise_rates(model(False, 0.01), parts[rank], target=0.08, total=total)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, [0, 1])) == [whole, whole]
