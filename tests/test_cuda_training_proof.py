"""Training on a CUDA device at the size of the delay paper's network, its kernels compiled for the CPU."""

from typing import Any

import pytest
import test_gpu_training as real
from cuda_emulator import compiled
from gpu_device import SHD, Size

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the simulator stand for the device that this size asks for."""
    monkeypatch.setattr(Size, "real", False)


@pytest.mark.parametrize(
    "body",
    [
        real.test_in_float64_the_whole_network_is_the_cpus,
        real.test_repeated_steps_have_the_same_bits,
        real.test_delay_layers_are_as_exact_as_float32_can_be,
    ],
    ids=lambda body: body.__name__.removeprefix("test_"),
)
def test_at_real_size(body: Any) -> None:
    with compiled():
        body(SHD)


def test_in_float32_few_spikes_differ(record_property: Any) -> None:
    with compiled() as seen:
        real.test_in_float32_differing_spikes_are_counted_and_few(SHD, record_property)
    assert any("cuda_neurons" in name for name in seen)
