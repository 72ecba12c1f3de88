"""What `make ptx` is made of: arguments become types, and what the assembler says is read and judged."""

import json
from pathlib import Path

import numpy as np
import ptx_check
import ptx_record
import pytest
from ptx_check import Built, numba_type, read, split, table

from snnsim.kernels.cuda_support import device_array

WORDS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'kernel' for 'sm_90'
ptxas info    : Function properties for kernel
    24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 24 bytes cumulative stack size
"""
ROW = {"module": "snnsim.kernels.cuda_x", "kernel": "lif_forward", "types": ["float32[1C]"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "float32[2C]"),
        (np.zeros((2, 3)).T, "float64[2A]"),
        (np.zeros(3, bool), "boolean[1C]"),
        (3, "int64"),
        (True, "boolean"),
        (0.5, "float64"),
        (np.float32(0.5), "float32"),
        (np.int32(1), "int32"),
        (None, "none"),
        ((1, (np.zeros(1, np.uint8),)), "(int64 (uint8[1C]))"),
    ],
)
def test_arguments_have_the_types_of_a_device(value: object, text: str) -> None:
    assert ptx_record.type_of(value) == text
    if isinstance(value, np.ndarray) and value.flags.c_contiguous:
        assert ptx_record.type_of(device_array(value)) == text
    with pytest.raises(TypeError, match="given list"):
        ptx_record.type_of([1])


def test_texts_become_types_again() -> None:
    from numba import types

    assert numba_type("float32[2C]") == types.Array(types.float32, 2, "C")
    assert numba_type("int64") == types.int64
    assert numba_type("none") == types.none
    assert split("int64 (uint8[1C] int64) none") == ["int64", "(uint8[1C] int64)", "none"]
    assert numba_type("(int64 (uint8[1C]))").types[1].types[0] == types.Array(types.uint8, 1, "C")


def test_only_kernels_of_the_package_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx_record, "_seen", {})

    def kernel(x: object) -> None: ...

    ptx_record.note(kernel, (1,), 4)
    assert ptx_record._seen == {}
    kernel.__module__, kernel.__qualname__ = "snnsim.kernels.cuda_x", "kernel"
    ptx_record.note(kernel, (1,), 4)
    ptx_record.note(kernel, (2,), 8)
    assert ptx_record._seen == {("snnsim.kernels.cuda_x", "kernel", ("int64",)): 8}


def test_what_the_assembler_says_is_read() -> None:
    built = read(ROW, 90, "fma.rn.f32 %f1\nfma.rn.f64 %fd1\nmul.rn.f32", WORDS)
    assert built == Built("cuda_x.lif_forward", ("float32[1C]",), 90, 40, 24, 24, 4096, 2)
    assert built.problems() == ["2 fused multiply-adds", "24 bytes spilled, allowed are 0"]
    assert read({**ROW, "kernel": "lif_backward"}, 90, "fma.rn.f32", "").problems() == []
    assert "cuda_x.lif_forward" in table([built])


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "occupancy"), [(90, 32, 0, 1.0), (90, 128, 0, 0.25), (90, 16, 116000, 0.125)]
)
def test_occupancy(arch: int, registers: int, shared: int, occupancy: float) -> None:
    assert Built("k", (), arch, registers, 0, 0, shared, 0).occupancy == occupancy


def test_a_kernel_that_does_not_compile_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "kernels.json"
    record.write_text(json.dumps([{**ROW, "module": "snnsim.kernels.cuda_none"}]))
    monkeypatch.setattr(ptx_check, "ptxas", lambda: Path("ptxas"))
    assert ptx_check.main([str(record), "--arch", "80", "--arch", "90"]) == 1
    said = capsys.readouterr().out
    assert "No module named 'snnsim.kernels.cuda_none' (sm_80, sm_90)" in said
    assert "1 kernels, 1 signatures, 0 compiled, 1 wrong" in said
    record.write_text("[]")
    assert ptx_check.main([str(record)]) == 1  # nothing was noted: the proof would be empty
