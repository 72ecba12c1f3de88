"""Batch norm and whole models on a CUDA device, in Numba's simulator, against the CPU's kernels."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels.cuda_reductions import SEGMENT, segments_of, sum_middle
from snnsim.kernels.cuda_support import SIMULATED, device_array
from snnsim.nn import cuda_norm, fused, fused_norm
from snnsim.nn.context import Context
from snnsim.nn.cuda import simulated_device
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.map_norm import BatchNormMaps
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.reductions import add_bias, softmax, sum_first
from snnsim.nn.spiking import Prepared

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}


def close(a, b, dtype):
    scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("n", [0, 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
def test_sums_run_in_a_fixed_order_in_float64(n):
    x = np.random.default_rng(0).standard_normal((2, n, 3)).astype(np.float32)
    part, out = device_array(np.zeros(2 * segments_of(n) * 3)), device_array(np.zeros(6))
    sum_middle(device_array(x.reshape(-1)), 2, n, 3, part, out)
    wide = x.astype(np.float64)
    stretches = [wide[:, k : k + SEGMENT].cumsum(axis=1)[:, -1:] for k in range(0, n, SEGMENT)]
    expected = np.concatenate(stretches, axis=1).cumsum(axis=1)[:, -1] if n else np.zeros((2, 3))
    assert np.array_equal(out.copy_to_host().reshape(2, 3), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm(masked, dtype):
    x = torch.randn(45, 3, 2, dtype=dtype) * torch.tensor([1.0, 20.0]) + torch.tensor([0.5, 300.0])
    x = x.to(dtype)
    context = Context(mask=torch.arange(45).unsqueeze(1) < torch.tensor([45, 20, 0])) if masked else None
    up = torch.randn(x.shape, dtype=dtype)
    results = []
    for simulate in (False, True):
        norm = BatchNormTime(2).to(dtype)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.7, 1.3]))
            norm.bias.copy_(torch.tensor([0.1, -0.2]))
        given = x.clone().requires_grad_()
        if simulate:
            with simulated_device():
                y, _ = norm(given, None, context)
                (y * up).sum().backward()
        else:
            y, _ = norm(given, None, context)
            (y * up).sum().backward()
        results.append([y.detach(), given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        assert int(norm.num_batches_tracked) == 1
    for a, b in zip(*results, strict=True):
        assert close(a, b, dtype)


def test_batch_norm_of_too_few_steps():
    norm = BatchNormTime(2)
    with simulated_device():
        with pytest.raises(InputError, match="expected at least 2 valid steps in a training batch, got 1"):
            norm(torch.ones(1, 1, 2))
        y, _ = norm(torch.ones(3, 1, 2), None, Context(mask=torch.tensor([[True], [False], [False]])))
    assert torch.isnan(y).all()  # asking the device for the number would wait for it


def test_batch_norm_of_a_constant_is_its_shift():
    with simulated_device():
        y, _ = BatchNormTime(1)(torch.full((70, 2, 1), 1e6))
    assert torch.equal(y, torch.zeros_like(y))


def test_the_sums_of_several_processes_are_added(monkeypatch):
    reduced = []

    def double(x):
        reduced.append(x.numel())
        return x.mul_(2)

    monkeypatch.setattr(cuda_norm, "all_reduce_tensor", double)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    with simulated_device():
        found = cuda_norm.moments(x, None, 0.0)
    assert reduced == [4, 3]
    assert float(found.count) == 20
    assert torch.allclose(found.mean, x.mean(dim=(0, 1)), atol=1e-14)
    assert torch.allclose(found.variance, x.reshape(-1, 3).var(dim=0, unbiased=False), atol=1e-14)


def test_batch_norm_of_maps():
    x = torch.randn(3, 2, 2, 2, 3)
    for over in ("step", "time"):
        results = []
        for _ in range(2):
            norm = BatchNormMaps(2, over=over)
            if results:
                with simulated_device():
                    results.append((norm(x)[0].detach(), norm.running_mean))
            else:
                results.append((norm(x)[0].detach(), norm.running_mean))
        for a, b in zip(*results, strict=True):
            assert close(a, b, torch.float32)


def neurons(kind, size):
    learn = {"learn": ("v_threshold",)} if kind != "plain" else {}
    if kind in ("plain", "lif"):
        return LIF(size, dt=0.01, reset="subtract", **learn)
    if kind == "cubalif":
        return CubaLIF(size, dt=0.01, v_threshold=0.3, learn=("tau_mem", "tau_syn", "v_threshold"))
    return AdaptiveLIF(size, dt=0.01, adapt_spike=0.2, adapt_v=0.1, learn=("tau_adapt", "adapt_v"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["plain", "lif", "cubalif", "adlif"])
def test_normalised_neurons_with_dropout_and_mask_have_the_bits_of_the_cpu(kind, dtype):
    """Batch norm's numbers are handed over: what the kernels compute with them is equal bit for bit."""
    n_steps, batch, size = 37, 3, 2
    neuron = neurons(kind, size)
    generator = torch.Generator().manual_seed(1)
    current = torch.randn(n_steps, batch, size, generator=generator, dtype=dtype)
    factors = torch.tensor([[2.0, 0.0], [2.0, 2.0], [0.0, 2.0]], dtype=dtype)
    mask = torch.arange(n_steps).unsqueeze(1) < torch.tensor([37, 20, 33])
    norm = BatchNormTime(size)
    measured = norm.statistics(current, Context(mask=mask))
    moved = cuda_norm.DeviceStatistics(
        torch.tensor(measured.count, dtype=torch.float64),
        *(torch.from_numpy(part) for part in (measured.mean, measured.variance, measured.deviation)),
    )
    ups = [torch.randn(n_steps, batch, size, generator=generator, dtype=dtype)]
    ups += [torch.randn(batch, size, generator=generator, dtype=dtype) for _ in range(2)]
    results = []
    for statistics in (measured, moved):
        inputs = [current.clone(), torch.tensor([0.9, 1.4]).to(dtype), torch.tensor([0.6, 0.5]).to(dtype)]
        states = tuple(part.to(dtype) for part in neuron.initial_state(batch, dtype)[:-1])
        for x in inputs:
            x.requires_grad_()
        neuron.zero_grad()

        def go(inputs=inputs, states=states, statistics=statistics):
            prepared: Prepared = neuron.prepare(dtype)
            out, end, counts = fused_norm.norm_neurons(
                *inputs, states, prepared.vectors, factors, neuron.dynamics, prepared.rule, statistics, mask
            )
            sum((a * up).sum() for a, up in zip((out, *end), ups, strict=False)).backward()
            return [out.detach(), *(part.detach() for part in end), counts]

        if statistics is moved:
            with simulated_device():
                values = go()
        else:
            values = go()
        results.append((values, [*(x.grad for x in inputs), *(p.grad for p in neuron.parameters())]))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(a, b)
    assert 0 < results[0][0][0].count_nonzero() < n_steps * batch * size
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert close(a, b, dtype)


def model(neuron, readout, dtype, recurrent=False, norm=True):
    generator = torch.Generator().manual_seed(2)
    blocks = []
    for index, (n_in, n_out) in enumerate([(5, 4), (4, 3)]):
        cells = neuron(n_out)
        blocks.append(
            Block(
                Linear(n_in, n_out, bias=not norm, generator=generator),
                Recurrent(cells, generator=generator) if recurrent else cells,
                norm=BatchNormTime(n_out) if norm else None,
                dropout=SequenceDropout(0.25, layer=index),
            )
        )
    made = SpikingModel(blocks, ReadoutBlock(Linear(3, 2, generator=generator), readout), dt=0.01)
    with torch.no_grad():
        for block in made.blocks:
            if block.norm is not None:
                block.norm.bias.fill_(0.5)
            else:
                block.connection.bias.fill_(0.3)
    return made.to(dtype)


@pytest.mark.parametrize(
    ("neuron", "readout", "recurrent", "norm"),
    [
        (lambda n: LIF(n, dt=0.01, learn=("tau_mem",)), LI(2, dt=0.01, learn=("tau_mem",)), False, True),
        (lambda n: CubaLIF(n, dt=0.01, v_threshold=0.2, t_ref=0.02), CubaLI(2, dt=0.01), False, True),
        (lambda n: AdaptiveLIF(n, dt=0.01, adapt_spike=0.3), LI(2, dt=0.01), False, False),
        (lambda n: LIF(n, dt=0.01), LI(2, dt=0.01), True, True),
    ],
    ids=["lif", "cubalif-refractory", "adaptive", "recurrent"],
)
def test_a_model_of_two_layers_trains_as_on_the_cpu(neuron, readout, recurrent, norm):
    dtype = torch.float64
    first = model(neuron, readout, dtype, recurrent, norm)
    second = copy.deepcopy(first)
    n_steps = 7 if recurrent else 34
    x = (torch.rand(n_steps, 2, 5, generator=torch.Generator().manual_seed(5)) < 0.4).to(dtype)
    mask = torch.arange(n_steps).unsqueeze(1) < torch.tensor([n_steps, n_steps - 2])
    context = Context(mask=mask, sample_id=torch.tensor([4, 9]), epoch=1, seed=3)
    outputs = []
    for made, simulate in ((first, False), (second, True)):

        def go(made=made):
            out = made(x, context=context)
            (out.logits * torch.tensor([[1.0, -2.0], [0.5, 1.0]])).sum().backward()
            return out

        if simulate:
            with simulated_device():
                outputs.append(go())
        else:
            outputs.append(go())
    assert close(outputs[0].logits.detach(), outputs[1].logits.detach(), dtype)
    assert torch.equal(outputs[0].rates, outputs[1].rates)
    assert (outputs[0].rates > 0).all()
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert a.grad is not None, name
        assert close(a.grad, b.grad, dtype), name
    for (name, a), (_, b) in zip(first.named_buffers(), second.named_buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-12), name


def test_sums_and_softmax_on_the_device():
    x, bias = torch.randn(4, 2, 3), torch.randn(3, requires_grad=True)
    with simulated_device():
        (add_bias(x, bias) * x).sum().backward()
        assert torch.allclose(bias.grad, x.sum(dim=(0, 1)), atol=1e-6)
        assert torch.allclose(sum_first(x), x.sum(dim=0), atol=1e-6)
        given = x.clone().requires_grad_()
        softmax(given).square().sum().backward()
    expected = x.clone().requires_grad_()
    torch.softmax(expected, dim=2).square().sum().backward()
    assert torch.allclose(given.grad, expected.grad, atol=1e-6)


def test_the_step_of_training_keeps_the_layer_current_alone():
    kept = []
    neuron = LIF(3, dt=0.01)
    prepared = neuron.prepare(torch.float32)
    rule = replace(prepared.rule, detach_reset=True)
    assert isinstance(rule, fused.SpikeRule)
    current = torch.rand(64, 2, 3, requires_grad=True)
    with (
        simulated_device(),
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x),
    ):
        fused_norm.norm_neurons(
            current, None, None, (torch.zeros(2, 3),), prepared.vectors, None, neuron.dynamics, rule, None, None
        )
    assert sorted(kept) == [2 * 6, 9 * 3, 64 * 6]
