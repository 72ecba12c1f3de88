"""Training on a CUDA device: distances from float64, the same bits again, streams, waiting, memory, graphs, files.

Every test that can runs at toy size in Numba's simulator too, so that the test itself is known to be right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_device import SHD, SIZES, Size, context_of, device_for, distance, make_batch, make_model, on_cpu, training_step

from snnsim.nn.neurons import LIF

LIMIT = 1e-6
"""Relative l2 distance of float32 on a device from float64 on the CPU, a layer alone."""

LONG = Size((700, 256, 256, 20), 1000, 128, n_delays=1)
FLOAT64 = 1e-9
"""The same distance of float64 on a device, whole networks."""


@pytest.mark.parametrize("size", SIZES)
def test_delay_layers_are_as_exact_as_float32_can_be(size: Size) -> None:
    generator = torch.Generator().manual_seed(0)
    with device_for(size.real) as device:
        layers = zip(make_model(size).delay_layers(), make_model(size, torch.float64).delay_layers(), strict=True)
        for here, there in layers:
            shape = (size.n_steps, size.batch)
            x = (torch.rand(*shape, here.n_in, generator=generator) < 0.3).double()
            upstream = torch.randn(*shape, here.n_out, generator=generator).double()

            def run(layer: Any, x: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
                x = x.requires_grad_()
                y = layer.train()(x)[0]
                return y, *torch.autograd.grad(y, [x, layer.weight, layer.position], upstream)

            reference = on_cpu(run, there, x.clone(), upstream)
            found = run(here.to(device), x.float().to(device), upstream.float().to(device))
            for name, a, b in zip(("output", "input", "weight", "position"), found, reference, strict=True):
                assert distance(a, b) <= LIMIT, f"{name}: {distance(a, b):.1e}"
            with torch.no_grad():  # one wrong weight is seen
                there.weight[0, 0] += 0.1
            assert distance(found[0], on_cpu(run, there, x.clone(), upstream)[0]) > LIMIT


@pytest.mark.parametrize("size", SIZES)
def test_in_float64_the_whole_network_is_the_cpus(size: Size) -> None:
    with device_for(size.real) as device:
        reference, model = make_model(size, torch.float64), make_model(size, torch.float64).to(device)
        x, labels = make_batch(size, reference, torch.float64)
        there = on_cpu(training_step, reference, x, labels)
        here = training_step(model, x.to(device), labels.to(device))
        for ours, theirs in zip(here.spikes, there.spikes, strict=True):
            assert torch.equal(ours.cpu(), theirs)
            assert int(theirs.count_nonzero()) > (10_000 if size.real else 0)
        assert distance(here.scores, there.scores) <= FLOAT64
        for name, gradient in there.gradients.items():
            assert distance(here.gradients[name], gradient) <= FLOAT64, name


@pytest.mark.parametrize("size", SIZES)
def test_in_float32_differing_spikes_are_counted_and_few(size: Size, record_property: Any) -> None:
    with device_for(size.real) as device:
        reference, model = make_model(size, torch.float64), make_model(size).to(device)
        x, labels = make_batch(size, reference, torch.float64)
        there = on_cpu(training_step, reference, x, labels)
        here = training_step(model, x.float().to(device), labels.to(device))
        pairs = [(a.cpu().double() != b).sum() for a, b in zip(here.spikes, there.spikes, strict=True)]
        differing, spikes = int(sum(pairs)), int(sum(b.count_nonzero() for b in there.spikes))
        record_property("differing_spikes", f"{differing} of {spikes}")
        print(f"\nfloat32 on the device against float64: {differing} of {spikes} spikes differ")
        assert spikes > 0
        assert differing <= 0.01 * spikes


@pytest.mark.parametrize("size", SIZES)
def test_repeated_steps_have_the_same_bits(size: Size) -> None:
    with device_for(size.real) as device:
        model = make_model(size).to(device)
        x, labels = (item.to(device) for item in make_batch(size, model, torch.float32))
        steps = [training_step(model, x, labels) for _ in range(3)]
        for name, gradient in steps[0].gradients.items():
            assert gradient.abs().sum() > 0, name
            for step in steps[1:]:
                assert torch.equal(gradient, step.gradients[name]), name
        assert all(torch.equal(steps[0].scores, step.scores) for step in steps[1:])


@pytest.mark.parametrize("size", SIZES)
def test_parameters_go_to_another_device_and_back(size: Size, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    with device_for(size.real) as device:
        model = make_model(size, torch.float64).to(device).eval()
        x, _ = make_batch(size, model, torch.float64)
        torch.save(model.state_dict(), file)
        other = make_model(size, torch.float64)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        other.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        for name, value in other.state_dict().items():
            assert value.device.type == "cpu"
            assert torch.equal(value, model.state_dict()[name].cpu()), name

        def evaluate(model: Any, x: torch.Tensor) -> Any:
            with torch.no_grad():
                return model.eval()(x, None, context_of(x), record=True)

        there, here = on_cpu(evaluate, other, x), evaluate(model, x.to(device))
        for ours, theirs in zip(here.spikes, there.spikes, strict=True):
            assert torch.equal(ours.cpu(), theirs)
        assert distance(here.logits, there.logits) <= FLOAT64


@pytest.mark.gpu
def test_on_another_stream_the_bits_are_the_same() -> None:
    with device_for(True) as device:
        model = make_model(SHD).to(device)
        x, labels = (item.to(device) for item in make_batch(SHD, model, torch.float32))
        first = training_step(model, x, labels)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        busy = torch.randn(4096, 4096, device=device)
        for _ in range(20):  # the default stream is busy, and whoever runs there by mistake comes late
            busy = busy @ busy / 64
        with torch.cuda.stream(stream):
            second = training_step(model, x, labels)
        stream.synchronize()
        for name, gradient in first.gradients.items():
            assert torch.equal(gradient, second.gradients[name]), name


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let torch raise where the host would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("size", [SHD, Size((700, 256, 256, 20), 100, 128, n_delays=1)], ids=["delays", "plain"])
def test_a_training_step_never_waits_for_the_device(size: Size) -> None:
    """Nothing is allowed to wait: not the forward pass, nor the backward pass, nor the optimiser."""
    with device_for(True) as device:
        model = make_model(size).to(device).train()
        x, labels = (item.to(device) for item in make_batch(size, model, torch.float32))
        context = context_of(x)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            output = model(x, None, context)
            torch.nn.functional.cross_entropy(output.logits, labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            model.clamp_()

        for _ in range(2):
            step()
        torch.cuda.synchronize()
        with no_waiting():
            with pytest.raises(RuntimeError):  # the guard is on
                float(x.sum())
            step()


@pytest.mark.gpu
def test_memory_of_a_training_step_is_bounded_and_grows_with_the_steps() -> None:
    """Kept are current and spikes of every hidden neuron-step, 8 bytes; backward needs three arrays of a layer more."""
    peaks = []
    with device_for(True) as device:
        for n_steps in (LONG.n_steps, 2 * LONG.n_steps):
            size = Size(LONG.layers, n_steps, LONG.batch, 1)
            model = make_model(size, dropout=0.0).to(device).train()
            x, labels = (item.to(device) for item in make_batch(size, model, torch.float32))
            context = context_of(x)
            for _ in range(2):
                model.zero_grad(set_to_none=True)
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                output = model(x, None, context)
                torch.nn.functional.cross_entropy(output.logits, labels).backward()  # type: ignore[no-untyped-call]
                torch.cuda.synchronize()
                peaks.append(torch.cuda.max_memory_allocated() - before)
            neuron_steps = n_steps * size.batch
            most = neuron_steps * (8 * 512 + 3 * 4 * 256 + 16 * 20) + (64 << 20)
            assert peaks[-1] <= most, f"{peaks[-1] >> 20} MiB, expected at most {most >> 20}"
            del model, x, labels, output
    assert peaks[3] <= 2.1 * peaks[1]


@pytest.mark.gpu
def test_a_captured_graph_gives_the_bits_of_the_eager_step() -> None:
    with device_for(True) as device:
        model = make_model(SHD, dropout=0.0).to(device).train()
        x, labels = (item.to(device) for item in make_batch(SHD, model, torch.float32))

        context = context_of(x)

        def step() -> torch.Tensor:
            output = model(x, None, context)
            torch.nn.functional.cross_entropy(output.logits, labels).backward()  # type: ignore[no-untyped-call]
            return output.logits

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                step()
        torch.cuda.current_stream().wait_stream(side)
        model.zero_grad(set_to_none=True)
        eager_scores = step().detach().clone()
        eager = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scores = step()
        for _ in range(2):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
            graph.replay()
            torch.cuda.synchronize()
            assert torch.equal(scores, eager_scores)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    assert torch.equal(parameter.grad, eager[name]), name


@pytest.mark.parametrize("size", SIZES)
def test_neurons_alone_have_the_bits_of_the_cpu(size: Size) -> None:
    units = size.layers[1]
    generator = torch.Generator().manual_seed(3)
    current = torch.randn(size.n_steps, size.batch, units, generator=generator) * 0.7
    upstream = torch.randn(current.shape, generator=generator)
    with device_for(size.real) as device:
        for dtype in (torch.float32, torch.float64):
            neurons = LIF(units, dt=0.001, tau_mem=0.01, reset="subtract")

            def run(neurons: Any, current: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                current = current.requires_grad_()
                spikes = neurons(current)[0]
                return spikes, torch.autograd.grad(spikes, current, upstream)[0]

            there = on_cpu(run, neurons, current.to(dtype).clone(), upstream.to(dtype))
            here = run(neurons.to(device), current.to(dtype).to(device), upstream.to(dtype).to(device))
            assert torch.equal(here[0].cpu(), there[0])
            assert distance(here[1], there[1]) <= (LIMIT if dtype == torch.float32 else 1e-12)
            assert int(there[0].count_nonzero()) > (10_000 if size.real else 0)
