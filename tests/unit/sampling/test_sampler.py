"""The sampler: every option does what its plain definition says, alone or in mixed company."""

import math

import pytest
import torch

from vllm.ops.draw import draw, noise_keys
from vllm.ops.table import Target, select
from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines
from vllm.sampling.sampler import Sampler
from vllm.sampling_params import SamplingParams

torch.set_num_threads(1)

OPS = select(Target("cpu", torch.float32), {"*": "reference"})
VOCAB = 300
GREEDY = {"temperature": 0}


class Bench:
    """A sampler with rows that can be opened in a line."""

    def __init__(self, mode="raw_logprobs"):
        self.sampler = Sampler(OPS, 16, mode)
        self.tokens = torch.zeros(16, 64, dtype=torch.int32)
        self.lens = {}

    def open(self, row, prompt=(1, 2, 3), output=(), seed=5, stop_ids=(), features=None, **params):
        known = [*prompt, *output]
        self.tokens[row, : len(known)] = torch.tensor(known)
        self.lens[row] = len(known)
        self.sampler.open(
            RowOpen(
                row=row,
                seq_id=row,
                epoch=0,
                token_ids=known,
                prompt_len=len(prompt),
                num_computed=0,
                block_ids=[],
                sampling=SamplingParams(max_tokens=50, **params),
                seed=seed,
                max_len=60,
                stop_ids=frozenset(stop_ids),
                features=features or {},
            )
        )
        return self

    def sample(self, logits, rows=None):
        rows = sorted(self.lens) if rows is None else rows
        lines = Lines(list(rows), [self.lens[r] for r in rows], self.tokens)
        return self.sampler.sample(logits.clone(), lines)


def _logits(count=1, seed=0, vocab=VOCAB):
    return torch.randn(count, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def _expected(logits, seed, length, keep=None):
    """The token a temperature-1 row must get: noise over the kept set."""
    line = logits.clone()
    if keep is not None:
        line[~keep] = -math.inf
    keys = noise_keys(torch.tensor([seed]), torch.tensor([length]))
    return int(draw(line[None], keys))


def test_greedy_is_argmax():
    logits = _logits(3)
    bench = Bench().open(0, **GREEDY).open(1, **GREEDY).open(2, **GREEDY)
    assert bench.sample(logits).tokens.tolist() == logits.argmax(-1).tolist()


def test_temperature_scales_logits_and_uses_the_rows_noise():
    logits = _logits(2)
    bench = Bench().open(0, seed=8, temperature=1.0).open(1, seed=9, temperature=0.5)
    assert bench.sample(logits).tokens.tolist() == [_expected(logits[0], 8, 3), _expected(logits[1] / 0.5, 9, 3)]


def _kept(logits, top_k=0, top_p=1.0, min_p=0.0):
    """The kept set by the definition, in float64 and with a full sort."""
    p = logits.double().softmax(-1)
    keep = p >= min_p * p.max()
    if top_k:
        keep &= logits >= logits.sort(descending=True).values[top_k - 1]
    order = logits.masked_fill(~keep, -math.inf).argsort(descending=True)
    q = p.masked_fill(~keep, 0.0)
    q = q / q.sum()
    before = q[order].cumsum(0) - q[order]
    chosen = order[before < top_p] if top_p < 1 else order[q[order] > 0]
    low = logits[chosen].min()
    return keep & (logits >= low)


@pytest.mark.parametrize("top_k", [0, 1, 7, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6])
@pytest.mark.parametrize("min_p", [0.0, 0.05])
@pytest.mark.parametrize("vocab", [300, 20_000])
def test_cuts_keep_the_defined_set(top_k, top_p, min_p, vocab):
    if top_k == 0 and top_p == 1.0 and min_p == 0.0:
        return
    scale = 0.2 if vocab > 300 else 1.0  # why: a flat line has its mass far down, past the first candidates
    logits = _logits(6, vocab=vocab) * scale
    bench = Bench("processed_logits")
    for row in range(6):
        bench.open(row, seed=row, top_k=top_k, top_p=top_p, min_p=min_p, logprobs=3)
    out = bench.sample(logits)
    for row in range(6):
        keep = _kept(logits[row], top_k, top_p, min_p)
        assert int(out.tokens[row]) == _expected(logits[row], row, 3, keep)
        expected = logits[row].masked_fill(~keep, -math.inf).topk(3).values.tolist()
        assert out.logprobs[row].values[1:] == expected


def test_equal_logits_at_the_edge_all_stay():
    logits = torch.full((1, 2000), -5.0)
    logits[0, :900] = 1.0
    keep = logits[0] > 0
    seen = set()
    for seed in range(40):
        bench = Bench().open(0, seed=seed, top_k=3)
        token = int(bench.sample(logits).tokens[0])
        assert token == _expected(logits[0], seed, 3, keep)
        seen.add(token)
    assert len(seen) > 30


def test_a_row_gets_the_same_token_alone_and_in_company():
    kinds = [
        {},
        GREEDY,
        {"top_k": 5},
        {"top_p": 0.8},
        {"top_k": 200, "top_p": 0.95, "temperature": 0.7},
        {"min_p": 0.1},
        {"presence_penalty": 1.0},
        {"top_p": 0.999, "temperature": 1.5},
    ]
    logits = _logits(8, vocab=5000)
    everyone = Bench()
    for row, kind in enumerate(kinds):
        everyone.open(row, seed=100 + row, **kind)
    together = everyone.sample(logits).tokens.tolist()
    for row, kind in enumerate(kinds):
        alone = Bench().open(row, seed=100 + row, **kind)
        assert alone.sample(logits[row : row + 1]).tokens.tolist() == together[row : row + 1]


def test_penalties():
    logits = _logits(1)
    bench = Bench("processed_logits").open(
        0,
        prompt=(4, 4, 9),
        output=(7, 7, 7, 9),
        presence_penalty=0.5,
        frequency_penalty=0.25,
        repetition_penalty=1.3,
        logprobs=-1,
        **GREEDY,
    )
    expected = logits[0].clone()
    for token in (4, 7, 9):
        expected[token] = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
    expected[7] -= 0.5 + 3 * 0.25
    expected[9] -= 0.5 + 0.25
    got = bench.sample(logits).logprobs[0]
    assert torch.tensor(got.values[1:])[torch.tensor(got.ids[1:]).argsort()] == pytest.approx(
        expected.numpy(), abs=1e-5
    )


def test_masks():
    logits = _logits(4)
    best = logits.argmax(-1).tolist()
    bench = (
        Bench()
        .open(0, allowed_token_ids=[11, 250, 3], **GREEDY)
        .open(1, logit_bias={17: 100.0}, **GREEDY)
        .open(2, min_tokens=2, stop_ids=[best[2]], output=(5,), **GREEDY)
        .open(3, min_tokens=2, stop_ids=[best[3]], output=(5, 6), **GREEDY)
    )
    got = bench.sample(logits).tokens.tolist()
    assert got[0] == max((11, 250, 3), key=lambda i: float(logits[0, i]))
    assert got[1] == 17
    assert got[2] == int(logits[2].topk(2).indices[1])
    assert got[3] == best[3]


def test_bad_words_look_at_the_output_alone():
    logits = _logits(1)
    first, second = logits[0].topk(2).indices.tolist()

    def token(prompt, output, runs):
        bench = Bench().open(0, prompt=prompt, output=output, features={"bad_words_ids": runs}, **GREEDY)
        return int(bench.sample(logits).tokens[0])

    assert token((1,), (8, 9), [[first]]) == second
    assert token((1,), (8, 9), [[8, 9, first]]) == second
    assert token((1,), (9, 8), [[8, 9, first]]) == first
    assert token((8,), (9,), [[8, 9, first]]) == first
    assert token((1,), (), [[8, first], [first, 3]]) == first


def test_logits_processors_of_both_shapes_and_a_failing_one():
    logits = _logits(4)
    seen = {}

    def short(output, line):
        seen["short"] = output
        line = line.clone()
        line[40] = 1000.0
        return line

    def long(prompt, output, line):
        seen["long"] = (prompt, output)
        line[41] = 1000.0
        return line

    def broken(output, line):
        raise RuntimeError("no")

    bench = (
        Bench()
        .open(0, output=(7,), logits_processors=[short], **GREEDY)
        .open(1, output=(8,), logits_processors=[long], **GREEDY)
        .open(2, logits_processors=[broken], **GREEDY)
        .open(3, logits_processors=[lambda ids, line: line[:5]], **GREEDY)
    )
    out = bench.sample(logits)
    assert out.tokens[:2].tolist() == [40, 41]
    assert seen == {"short": [7], "long": ([1, 2, 3], [8])}
    assert set(out.failed) == {2, 3}
    assert "broken raised RuntimeError: no" in out.failed[2]
    assert "must return a tensor of shape (300,), got (5,)" in out.failed[3]


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits"])
def test_logprobs_modes(mode):
    logits = _logits(3)
    bench = Bench(mode).open(0, logprobs=2, logit_bias={8: 50.0}, temperature=0.5, seed=3)
    bench.open(1, **GREEDY).open(2, logprobs=0, **GREEDY)
    out = bench.sample(logits)
    line = logits[0].clone()
    if mode.startswith("processed"):
        line[8] += 50.0
        line /= 0.5
    value = line.log_softmax(-1) if mode.endswith("logprobs") else line
    one = out.logprobs[0]
    assert one.ids == [8, *value.topk(2).indices.tolist()]
    assert one.values == pytest.approx(value[one.ids].tolist(), abs=1e-4)
    assert one.ranks == [int((value > value[8]).sum()) + 1, 1, 2]
    assert 1 not in out.logprobs
    assert len(out.logprobs[2].ids) == 1


def test_asked_ids_take_the_place_of_the_most_likely():
    logits = _logits(1)
    bench = Bench().open(0, logprobs=1, logprob_token_ids=[5, 6], **GREEDY)
    one = bench.sample(logits).logprobs[0]
    value = logits[0].log_softmax(-1)
    best = int(value.argmax())
    assert one.ids == [best, 5, 6]
    assert one.values == pytest.approx(value[one.ids].tolist(), abs=1e-5)
    assert one.ranks == [int((value > value[i]).sum()) + 1 for i in one.ids]


def test_closed_rows_leave_nothing_behind():
    bench = Bench().open(0, presence_penalty=1.0, logprobs=2, top_k=1, logit_bias={3: 5.0})
    bench.sampler.close(0)
    bench.open(0, **GREEDY)
    logits = _logits(1)
    out = bench.sample(logits)
    assert out.tokens.tolist() == logits.argmax(-1).tolist()
    assert not out.logprobs


def test_a_request_with_impossible_options_fails_alone():
    logits = _logits(4)
    bench = (
        Bench()
        .open(0, allowed_token_ids=[9], features={"bad_words_ids": [[9]]}, top_p=0.5)
        .open(1, logit_bias={VOCAB + 5: 1.0}, **GREEDY)
        .open(2, min_tokens=3, stop_ids=[VOCAB + 1], **GREEDY)
        .open(3, **GREEDY)
    )
    out = bench.sample(logits)
    assert set(out.failed) == {0, 1}
    assert int(out.tokens[2]) == int(logits[2].argmax())
    assert "leave no token" in out.failed[0]
    assert "LogitBias failed with" in out.failed[1]
    assert int(out.tokens[3]) == int(logits[3].argmax())
