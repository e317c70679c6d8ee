"""Kernels for processors that this machine may not be: they compile, and use the instructions they are written for.

What they compute can only be tested where the instructions are.
"""

import platform

import pytest
import torch

pytest.importorskip("llvmlite")
from llvmlite import binding as llvm

from vllm.ops.attention import AttentionShape
from vllm.ops.cpu import attention, jit, linear, linear_int8

if platform.machine() != "x86_64":
    pytest.skip("instructions of x86-64", allow_module_level=True)
AVX2 = frozenset({"sse2", "avx", "avx2", "fma", "f16c"})
ZEN4 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "avx512vnni"}
TARGETS = {"znver4": ZEN4, "znver2": AVX2}
SHAPE = AttentionShape(16, 8, 128, 128, 0.1)


@pytest.fixture
def assembly(monkeypatch):
    """compile(module, function, cpu) -> the assembly of every kernel that the call asks for."""

    def compile_(module, call, cpu: str) -> str:
        texts = []
        jit._machine()  # why: it is made once, for this machine

        def load(text: str, entry: str) -> int:
            texts.append(text)
            raise NotImplementedError

        monkeypatch.setattr(jit, "features", lambda: TARGETS[cpu])
        monkeypatch.setattr(module, "features", lambda: TARGETS[cpu])
        monkeypatch.setattr(jit, "_team", lambda: None)
        monkeypatch.setattr(jit, "_load", load)
        for kernel in vars(module).values():
            if isinstance(kernel, jit.Kernel):
                monkeypatch.setattr(kernel, "_ready", {})
        with pytest.raises(NotImplementedError):
            module._function.__wrapped__(*call)
        made = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu=cpu, opt=3)
        parsed = llvm.parse_assembly(texts[0])
        parsed.verify()
        builder = llvm.create_pass_builder(made, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(parsed, builder)
        return made.emit_assembly(parsed)

    return compile_


LINEAR = (torch.bfloat16, torch.bfloat16, 6144, 2, False)
INT8 = (torch.bfloat16, 6144, 2, False)
CASES = {
    "linear, few": (linear, (*LINEAR, True), "vdpbf16ps"),
    "linear, many": (linear, (*LINEAR, False), "vdpbf16ps"),
    "int8, few": (linear_int8, (*INT8, True), "vpdpbusd"),
    "int8, many": (linear_int8, (*INT8, False), "vpdpbusd"),
    "attention, prompt": (attention, (torch.bfloat16, SHAPE, 64, False, False), "vdpbf16ps"),
    "attention, decode": (attention, (torch.bfloat16, SHAPE, 64, True, False), "vdpbf16ps"),
}


@pytest.mark.parametrize("name", CASES)
def test_avx512_kernels_use_its_dot_products(name, assembly):
    module, call, instruction = CASES[name]
    code = assembly(module, call, "znver4")
    assert instruction in code and "%zmm" in code
    # why: accumulators that do not fit into registers would be read back in every turn, dozens of times
    assert code.count("(%rsp), %zmm") < 16


@pytest.mark.parametrize("name", CASES)
def test_avx2_kernels_need_no_more(name, assembly):
    module, call, _ = CASES[name]
    code = assembly(module, call, "znver2")
    assert "%zmm" not in code and "%k1" not in code
    assert ("vpmaddwd" if module is linear_int8 else "vfmadd") in code
    asks = name.endswith("few")
    assert ("prefetch" in code) == asks
