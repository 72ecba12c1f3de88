"""The fast paths with the narrower vectors of other processors, each in a process that is told it has no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import llvmlite.binding as llvm
features, real = llvm.get_host_cpu_features(), llvm.get_host_cpu_features
class Fewer(type(features)):
    def get(self, name, default=None):
        return {"avx512f": False, "avx": sys.argv[1] == "32"}.get(name, super().get(name, default))
llvm.get_host_cpu_features = lambda: Fewer(features)
from snnsim.kernels import simd
llvm.get_host_cpu_features = real
assert simd.VECTOR_BYTES == int(sys.argv[1])
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""
FILES = ("spectral", "products", "fused_norm", "fused_recurrent", "inference", "delays", "threads", "edges")


@pytest.mark.slow
@pytest.mark.parametrize("vector_bytes", [16, 32])
def test_narrower_vectors(vector_bytes: int, tmp_path: Path) -> None:
    here = Path(__file__).parent
    files = [str(here / f"test_nn_{name}.py") for name in FILES]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(vector_bytes), *files],
        cwd=here.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
