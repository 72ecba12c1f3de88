"""Learned time constants are the right ones: those of a teacher, found again from its spikes."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "teacher_recovery.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_time_constant_of_a_teacher_is_recovered(seed: int) -> None:
    true, found = runpy.run_path(str(EXAMPLE))["recover"](seed, 400)
    assert np.abs(0.015 / true - 1).max() > 0.5
    assert np.abs(found / true - 1).max() < 0.05
