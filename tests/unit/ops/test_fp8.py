"""The fp8 ops: values, scales, fused forms, and what a linear map of them means."""

import pytest
import torch

from vllm.ops import linear_fp8 as lf
from vllm.ops import quantize as q
from vllm.ops.activation import activate_mul
from vllm.ops.norm import add_rms_norm, rms_norm
from vllm.ops.table import Target, select

DTYPES = (torch.float32, torch.bfloat16)


def intakes(group: int) -> list[q.Intake]:
    return [q.Intake(group=group)] if group else [q.Intake(), q.Intake(static=torch.tensor(0.01))]


def same(a: q.Quantized, b: q.Quantized) -> None:
    assert a.dtype == b.dtype and torch.equal(a.scale, b.scale)
    assert torch.equal(a.values.view(torch.uint8), b.values.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", q.CASES, ids=str)
def test_values_and_scales(case, dtype):
    torch.manual_seed(0)
    tokens, width, group = case
    x = (torch.randn(tokens, width) * 3).to(dtype)
    x[0, : width // 2] = 0
    for intake in intakes(group):
        got = q.quantize(x, intake)
        assert got.values.dtype == q.FP8 and got.scale.dtype == torch.float32 and got.shape == x.shape
        assert got.scale.shape == (
            {0: (tokens,)}.get(group, (tokens, -(-width // (group or 1)))) if intake.static is None else ()
        )
        back = q.restore(got)
        limit = x.float().clamp(-4.48, 4.48) if intake.static is not None else x.float()
        assert ((back - limit).abs() <= limit.abs() / 16 + got.scale.max() * 2**-10).all()
        # why: a value is the nearest of all e4m3 values
        alone = torch.cat([q.quantize(x[t : t + 1], intake).values for t in range(tokens)])
        assert torch.equal(alone.view(torch.uint8), got.values.view(torch.uint8))


def test_extremes():
    big = q.quantize(torch.tensor([[1e30, -1e30], [0.0, 0.0], [3e-38, 1e-38]]), q.Intake())
    assert big.values.float().tolist()[:2] == [[448.0, -448.0], [0.0, 0.0]] and big.scale[1] == 0
    assert torch.isfinite(q.restore(big)).all()
    held = q.quantize(torch.tensor([[1e5, -1e5, 1.0]]), q.Intake(static=torch.tensor(0.5)))
    assert q.restore(held).tolist() == [[224.0, -224.0, 1.0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", q.CASES, ids=str)
def test_fused_ops_are_their_parts(case, dtype):
    torch.manual_seed(0)
    tokens, width, group = case
    x, r, w = torch.randn(tokens, width).to(dtype), torch.randn(tokens, width).to(dtype), torch.rand(width) + 0.5
    for intake in intakes(group):
        same(q.rms_norm_quantize(x, w, 1e-6, intake), q.quantize(rms_norm(x, w, 1e-6), intake))
        s, y = q.add_rms_norm_quantize(x, r, w, 1e-6, intake)
        want = add_rms_norm(x, r, w, 1e-6)
        assert torch.equal(s, want[0])
        same(y, q.quantize(want[1], intake))
        pair = torch.cat((x, r), -1)
        same(q.activate_mul_quantize(pair, "silu", intake), q.quantize(activate_mul(pair, "silu"), intake))


def packed(inputs: int, outputs: int, block: int) -> lf.Fp8Weight:
    weight = torch.randn(outputs, inputs)
    if not block:
        return lf._pack(*lf.quantize_weight(weight))
    scale = torch.rand(-(-outputs // block), -(-inputs // block)) * 0.01 + 0.001
    return lf._pack_block(q.to_fp8(weight * 100), scale, (block, block))


@pytest.mark.parametrize("case", [*((*c, 0) for c in lf.CASES), *lf.BLOCK_CASES], ids=str)
def test_linear(case):
    torch.manual_seed(0)
    tokens, inputs, outputs, block = case
    x, weight, bias = torch.randn(tokens, inputs), packed(inputs, outputs, block), torch.randn(outputs)
    run = lf.linear_fp8_block if block else lf.linear_fp8
    quantized = q.quantize(x, weight.intake)
    want = q.restore(quantized).double() @ lf.restore_weight(weight.data_OE, weight.scale, weight.block).double().T
    want = want + bias
    for given in (x, quantized):
        got = run(given, weight, bias)
        assert got.dtype == x.dtype and (got - want).abs().max() <= 1e-5 * want.abs().max()
    fixed = getattr(select(Target("cpu", torch.float32, deterministic=True)), run.name)
    together = fixed(x, weight, bias)
    assert (together - want).abs().max() <= 1e-5 * want.abs().max()
    assert torch.equal(together, torch.cat([fixed(x[t : t + 1], weight, bias) for t in range(tokens)]))


def test_scales_of_a_tensor_a_row_and_a_block():
    data = torch.ones(3, 5).to(q.FP8)
    assert lf.restore_weight(data, torch.tensor([2.0])).tolist() == [[2.0] * 5] * 3
    assert lf.restore_weight(data, torch.tensor([[1.0], [2.0], [3.0]]))[:, 0].tolist() == [1.0, 2.0, 3.0]
    blocks = lf.restore_weight(data, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (2, 4))
    assert blocks.tolist() == [[1.0] * 4 + [2.0], [1.0] * 4 + [2.0], [3.0] * 4 + [4.0]]
