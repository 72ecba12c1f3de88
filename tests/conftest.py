"""Every test begins with the same state of torch's generator, whatever ran before it in the same worker."""

import os
import sys

import pytest

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # CUDA kernels run in Numba's simulator; `make gpu` sets it to 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
