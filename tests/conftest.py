"""Every test begins with the same state of torch's generator, whatever ran before it in the same worker."""

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
