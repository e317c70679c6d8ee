"""Hand-made plans give the tokens of a plain dense forward of the same weights, however they are cut into steps."""

import math

import pytest
import torch

from tests.unit.worker.helpers import make_host, random_weights, tiny_llama
from vllm.sampling_params import SamplingParams
from vllm.worker.picked import some_of

PROMPTS = [[1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1, 11, 12, 13], [42], [7] * 9]
WINDOW = 6


def _norm(x, w):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w


def dense_logits(decoder, weights, tokens):
    """Logits of every position in float64, with no cache, blocks or chunks: the whole sequence at once."""
    w = {k: v.double() for k, v in weights.items()}
    x, n = w["embed.weight"][tokens], len(tokens)
    angle = torch.arange(n)[:, None].double() / 10000 ** (torch.arange(4).double() / 4)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]
    for i, block in enumerate(decoder.blocks):
        at = f"layers.{i}"
        qkv = (_norm(x, w[f"{at}.pre_mixer.weight"]) @ w[f"{at}.mixer.qkv.weight"].T).view(n, 8, 8)
        turned = torch.complex(qkv[:, :6, :4], qkv[:, :6, 4:]) * turn
        q, k = torch.cat((turned.real, turned.imag), -1).split((4, 2), 1)
        k, v = k.repeat_interleave(2, 1), qkv[:, 6:].repeat_interleave(2, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(8)
        far = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        hidden = (far < 0) | (far >= (block.mixer.window or n))
        y = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)
        x = x + y.reshape(n, -1) @ w[f"{at}.mixer.o.weight"].T
        gate, up = (_norm(x, w[f"{at}.pre_ffn.weight"]) @ w[f"{at}.ffn.gate_up.weight"].T).chunk(2, -1)
        x = x + (torch.nn.functional.silu(gate) * up) @ w[f"{at}.ffn.down.weight"].T
    return _norm(x, w["norm.weight"]) @ w["head.weight"].T


@pytest.fixture(scope="module", params=[None, WINDOW], ids=["full", "sliding"])
def case(request):
    decoder = tiny_llama(window=request.param)
    weights = random_weights(decoder)
    expected = []
    for prompt in PROMPTS:
        tokens = list(prompt)
        for _ in range(10):
            tokens.append(int(dense_logits(decoder, weights, tokens)[-1].argmax()))
        expected.append(tokens)
    return decoder, weights, expected


def test_whole_prompts_together(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    for row, prompt in enumerate(PROMPTS):
        host.open(row, prompt)
    host.step(*((row, len(p)) for row, p in enumerate(PROMPTS)))
    for _ in range(9):
        host.step(*((row, 1) for row in range(len(PROMPTS))))
    assert [host.tokens(row) for row in range(len(PROMPTS))] == expected


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_chunks_beside_decodes(case, chunk):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    order = [2, 0, 3, 1]
    waiting = list(order)
    running = []
    while len(running) < len(order) or any(len(host.tokens(r)) < len(expected[r]) for r in running):
        if waiting:
            running.append(waiting.pop(0))
            host.open(running[-1], PROMPTS[running[-1]])
        asks = []
        for row in running:
            tokens, computed = host.tokens(row), host.seqs[row][2]
            if len(tokens) < len(expected[row]):
                asks.append((row, min(chunk, len(tokens) - computed)))
        host.step(*asks)
    assert [host.tokens(row) for row in range(len(PROMPTS))] == expected


def test_preempted_and_opened_again(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    host.open(3, PROMPTS[1])
    host.step((3, 12))
    for _ in range(4):
        host.step((3, 1))
    tokens = host.close(3)[0]
    host.open(5, PROMPTS[0])
    host.step((5, 5))
    host.open(3, tokens, prompt_len=12, epoch=1)
    host.step((5, 1), (3, 9))
    result = host.step((5, 1), (3, len(tokens) - 9))
    assert result.epochs == [0, 1]
    while len(host.tokens(3)) < len(expected[1]):
        host.step((5, 1), (3, 1))
    assert host.tokens(3) == expected[1]
    assert host.tokens(5) == expected[0][: len(host.tokens(5))]


def test_prefix_hit_reads_anothers_blocks(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    host.open(0, PROMPTS[1])
    host.step((0, 12))
    shared = [ids[:2] for ids in host.seqs[0][3]]
    host.open(1, PROMPTS[1], computed=8, blocks=shared)
    host.step((0, 1), (1, 4))
    while len(host.tokens(1)) < len(expected[1]):
        host.step((1, 1))
    assert host.tokens(1) == expected[1]


def test_blocks_below_a_window_may_be_null():
    decoder = tiny_llama(window=WINDOW)
    weights = random_weights(decoder)
    host = make_host(decoder, weights=weights)
    host.open(0, PROMPTS[1])
    host.step((0, 12))
    blocks = [
        [0 if (b + 1) * 4 <= g.kind.first_needed(12) else i for b, i in enumerate(ids)]
        for g, ids in zip(host.kv_plan.groups, host.seqs[0][3], strict=True)
    ]
    assert any(0 in ids for ids in blocks)
    tokens = host.tokens(0)
    host.open(1, tokens, prompt_len=12, computed=12, blocks=blocks)
    host.step((1, 1))
    host.step((0, 1))
    assert host.tokens(1) == host.tokens(0)


def test_siblings_share_the_prompt_and_copy_the_last_block(case):
    decoder, weights, _ = case
    params = SamplingParams(temperature=1.0, max_tokens=20)
    alone = []
    for seed in (11, 12):
        host = make_host(decoder, weights=weights)
        host.open(0, PROMPTS[0], params, seed=seed)
        host.step((0, 5))
        for _ in range(6):
            host.step((0, 1))
        alone.append(host.tokens(0))
    host = make_host(decoder, weights=weights)
    host.open(0, PROMPTS[0], params, seed=11)
    host.step((0, 3))
    host.plan.new_blocks.clear()
    parts = host.seqs[0][3]
    for ids in parts:
        ids.append(host.free.pop())
    host.plan.new_blocks = [(0, g, ids[-1:]) for g, ids in enumerate(parts)]
    own = [host.free.pop() for _ in parts]
    host.open(1, PROMPTS[0], params, seed=12, blocks=[[ids[0], mine] for ids, mine in zip(parts, own, strict=True)])
    host.step((0, 2), fan_out=[(1, 0)])
    host.plan.copies = [(ids[1], mine) for ids, mine in zip(parts, own, strict=True)]
    for _ in range(6):
        host.step((0, 1), (1, 1))
    assert [host.tokens(0), host.tokens(1)] == alone
    assert alone[0] != alone[1]


def test_drafts_are_kept_up_to_the_first_wrong_one(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    host.open(0, PROMPTS[0])
    host.step((0, 5))
    right = expected[0][6:]
    assert host.step((0, 4), drafts={0: [right[0], right[1], (right[2] + 1) % 97]}).tokens == [right[:3]]
    assert host.step((0, 3), drafts={0: right[3:5]}).tokens == [right[3:6]]
    assert host.step((0, 2), drafts={0: [(right[6] + 1) % 97]}).tokens == [right[6:7]]
    for _ in range(2):
        host.step((0, 1))
    assert host.tokens(0)[: len(expected[0])] == expected[0]


def test_a_row_past_its_end_writes_nowhere(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    stop = expected[0][7]
    host.open(0, PROMPTS[0], stop_ids=frozenset({stop}))
    host.open(1, PROMPTS[3], max_len=11)
    host.step((0, 5), (1, 9))
    host.step((0, 1), (1, 1))
    first_end = expected[0].index(stop, 5)
    while len(host.tokens(0)) <= first_end:
        host.step((0, 1))
    slabs = [s[1:].clone() for s in host.executor.runner.slabs]
    result = host.step((0, 1), (1, 1))
    assert result.tokens == [[], []]
    assert all(torch.equal(a, b[1:]) for a, b in zip(slabs, host.executor.runner.slabs, strict=True))


def test_prompt_logprobs_are_those_of_the_dense_model(case):
    decoder, weights, _ = case
    host = make_host(decoder, weights=weights)
    prompt = PROMPTS[1]
    host.open(0, prompt, SamplingParams(temperature=0, prompt_logprobs=3, max_tokens=4))
    seen = {}
    for n in (5, 5, 2):
        seen.update(host.step((0, n)).prompt_logprobs[100])
    expected = dense_logits(decoder, weights, prompt).log_softmax(-1)
    assert sorted(seen) == list(range(1, len(prompt)))
    for position, one in seen.items():
        line = expected[position - 1]
        assert one.ids[0] == prompt[position]
        assert one.ids[1:] == line.topk(3).indices.tolist()
        assert one.values == pytest.approx(line[one.ids].tolist(), abs=1e-4)
        assert one.ranks[0] == int((line > line[prompt[position]]).sum()) + 1


def test_options_that_cannot_be_read_fail_their_sequence_alone(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    host.open(0, PROMPTS[0])
    host.open(1, PROMPTS[1], features={"bad_words_ids": [["no number"]]})
    result = host.step((0, 5), (1, 12))
    assert [f[:2] for f in result.failed] == [(101, 0)]
    assert "its options failed with" in result.failed[0][2]
    assert result.tokens == [[expected[0][5]], []]
    host.close(1)
    host.open(1, PROMPTS[1])
    assert host.step((0, 1), (1, 12)).tokens == [[expected[0][6]], [expected[1][12]]]


def test_behind_the_last_keys_only_tokens_that_somebody_reads_are_made(case):
    decoder, weights, expected = case
    host = make_host(decoder, weights=weights)
    runner, seen = host.executor.runner, []
    block = runner.model._blocks[-1]
    ffn, qkv = block.ffn, block.mixer._qkv
    block.ffn = lambda h: seen.append(len(h)) or ffn(h)
    block.mixer._qkv = lambda h: seen.append(len(h)) or qkv(h)
    for row, prompt in enumerate(PROMPTS):
        host.open(row, prompt)
    host.step((0, 5), (1, 7))
    host.step((1, 5), (3, 9), (0, 1))
    assert seen == [12, 1, 15, 3] and [host.tokens(row)[-1] for row in (0, 1, 3)] == [
        expected[0][6], expected[1][12], expected[3][9]
    ]  # fmt: skip
    assert some_of([4, 9], 20, 4).tolist() == [4, 9, 9, 9] and some_of([], 20, 4).tolist() == [0] * 4
    assert some_of([4, 9], 7, 4) is None and some_of([4, 9], 3, 1) is None
