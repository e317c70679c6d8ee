"""The table chooses kernels once, by name or by rank, and says no clearly."""

import pytest
import torch

from vllm.ops.table import Kernel, Kernels, Op, Target, Tol, all_ops, select

CPU = Target("cpu", torch.float32)


def _op():

    return Op(
        "twice", Tol(), (), {"reference": Kernel("reference", lambda x: x + x, lambda t: True, 0, {"pack": list})}
    )


def test_the_best_kernel_that_can_run_is_the_default():
    op = _op()
    op.kernel("fast", when=lambda t: t.device == "cpu", rank=2)(lambda x: 2 * x)
    op.kernel("faster", when=lambda t: t.device == "cuda", rank=3)(lambda x: 2 * x)
    assert op.choose(CPU).name == "fast"
    assert op.choose(Target("cuda", torch.float32)).name == "faster"
    assert op.choose(CPU, "reference").name == "reference"


def test_a_kernel_brings_its_own_helpers_and_inherits_the_rest():
    op = _op()
    op.kernel("packed", when=lambda t: True, pack=tuple, other=set)(lambda x: x)
    chosen = Kernels({"twice": op.choose(CPU)})
    assert chosen.helper("twice", "pack") is tuple
    assert chosen.helper("twice", "other") is set
    assert Kernels({"twice": op.kernels["reference"]}).helper("twice", "pack") is list


def test_wrong_names_are_errors_that_list_the_right_ones():
    op = _op()
    with pytest.raises(ValueError, match=r"no kernel 'slow'; it has reference"):
        op.choose(CPU, "slow")
    op.kernel("gpu", when=lambda t: t.device == "cuda")(lambda x: x)
    with pytest.raises(ValueError, match="does not run on"):
        op.choose(CPU, "gpu")
    with pytest.raises(ValueError, match=r"unknown op 'rms'"):
        select(CPU, {"rms": "reference"})


def test_references_everywhere():
    kernels = select(CPU, {"*": "reference"})
    assert set(kernels.names()) == set(all_ops())
    assert set(kernels.names().values()) == {"reference"}
    with pytest.raises(AttributeError, match="no op is named"):
        _ = kernels.nothing
