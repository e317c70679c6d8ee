"""Deterministic mode: tokens and logprobs of a sequence are the same to the bit, whatever shares its steps."""

import random

import pytest
import torch

from tests.unit.worker.helpers import make_host, random_weights
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention, Heads
from vllm.sampling_params import SamplingParams

PROMPT = [(7 * i + 3) % 331 for i in range(45)]
PARAMS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.1, "top_p": 0.97, "repetition_penalty": 1.1},
]


def _decoder(moe):
    """Odd sizes on purpose: an inner size with a tail, a vocabulary that is no multiple of anything."""
    hidden = 64
    ffn = MoE(6, 2, MLP(hidden, 20)) if moe else MLP(hidden, 75)

    def block(i):
        qk = Norm(16)
        mixer = Attention(
            hidden, Heads(4, 2, 16), 0.25, Rope(16), qk_norm=(qk, qk), window=20 if i else None, softcap=20.0
        )
        return Block(mixer, ffn, Norm(hidden), Norm(hidden))

    return Decoder(hidden, (block(0), block(1)), Embedding(331, hidden), Head(False, softcap=15.0), Norm(hidden), 512)


def _host(moe, dtype, kernels):
    decoder = _decoder(moe)
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    weights = random_weights(decoder, std=0.2, dtype=kind)
    plan = {"deterministic": True, "kernels": kernels, "max_num_seqs": 300, "max_num_batched_tokens": 2048}
    return make_host(decoder, weights=weights, block_size=16, num_blocks=3000, dtype=dtype, **plan)


def _params(kind):
    return SamplingParams(max_tokens=30, logprobs=3, **PARAMS[kind])


def _follow(host, row, steps, others=(), chunks=(45,)):
    """Tokens and logprobs of `row`, opened now, while `others` decode beside it."""
    seen = []
    for n in (*chunks, *[1] * steps):
        result = host.step(*((r, 1) for r in others), (row, n))
        if 100 + row in result.seq_ids:
            i = result.seq_ids.index(100 + row)
            seen.append((result.tokens[i], result.logprobs[i]))
    return seen


@pytest.mark.parametrize("kernels", [{}, {"*": "tiled"}], ids=["best", "tiled"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_bit_for_bit(moe, dtype, kernels):
    if kernels:
        from vllm.ops.table import all_ops

        kernels = {name: "tiled" if "tiled" in op.kernels else "reference" for name, op in all_ops().items()}
    alone = []
    host = _host(moe, dtype, kernels)
    for kind in range(len(PARAMS)):
        host.open(kind, PROMPT, _params(kind), seed=50 + kind)
        alone.append(_follow(host, kind, 12))
        host.close(kind)
    dice = random.Random(1)
    busy = _host(moe, dtype, kernels)
    num = 9 if kernels else 60 if dtype == "float32" else 24
    for row in range(10, 10 + num):
        prompt = [dice.randrange(331) for _ in range(dice.randint(1, 9))]
        busy.open(row, prompt, _params(row % 4), seed=row)
        busy.step((row, len(prompt)))
    others = range(10, 10 + num)
    for kind in range(len(PARAMS)):
        busy.open(kind, PROMPT, _params(kind), seed=50 + kind)
        chunks = [(45,), (1, 2, 42), (16, 16, 13), (30, 15)][kind]
        assert _follow(busy, kind, 12, others, chunks) == alone[kind]
        tokens, blocks = busy.tokens(kind), [ids[:2] for ids in busy.seqs[kind][3]]
        # preempted after twelve tokens: what it had made is computed again as one prompt, half of it from the cache
        again = tokens[: 45 + 5]
        busy.close(kind, keep=True)
        busy.open(kind, again, _params(kind), seed=50 + kind, prompt_len=45, computed=32, blocks=blocks)
        assert _follow(busy, kind, 6, others, (10, 8)) == alone[kind][5:12]
