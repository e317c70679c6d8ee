"""The noise: a pure function of (seed, position, token), evenly spread, never infinite, and the same in any company."""

import numpy as np
import pytest
import torch

from vllm.ops.draw import LARGEST_U, draw, gumbel, noise_keys, uniform

torch.set_num_threads(1)


def _keys(count, seed=1234):
    return noise_keys(torch.full((count,), seed), torch.arange(count))


def _hash_in_numpy(seed, position, ids):
    """The hash once more, in unsigned words."""
    with np.errstate(over="ignore"):
        x = np.uint64(seed & (2**64 - 1)) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(position + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        h = ids.astype(np.uint32) * np.uint32(0x9E3779B1) + np.uint32(int(x) & 0xFFFFFFFF)
        for add in (np.uint32(int(x) >> 32), np.uint32(0)):
            h = (h ^ (h >> np.uint32(16))) * np.uint32(0x21F0AAAD)
            h = (h ^ (h >> np.uint32(15))) * np.uint32(0x735A2D97)
            h = (h ^ (h >> np.uint32(15))) + add
    return h


@pytest.mark.parametrize(("seed", "position"), [(0, 0), (1, 7), (-5, 131071), (2**63 - 1, 1), (-(2**63), 2**31)])
def test_the_hash_is_the_written_one(seed, position):
    ids = torch.arange(3000)
    got = uniform(noise_keys(torch.tensor([seed]), torch.tensor([position])), ids)[0]
    word = _hash_in_numpy(seed, position, ids.numpy()).astype(np.int64)
    expected = np.minimum((2 * word + 1).astype(np.float32) * np.float32(2.0**-33), np.float32(LARGEST_U))
    assert np.array_equal(got.numpy(), expected)


def test_uniforms_are_uniform_and_strictly_inside():
    u = uniform(_keys(40), torch.arange(131072))
    assert u.min() > 0 and u.max() <= LARGEST_U
    counts = torch.histc(u.double(), 1024, 0, 1)
    expected = u.numel() / 1024
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi - 1023) < 5 * (2 * 1023) ** 0.5
    assert torch.isfinite(gumbel(_keys(40), torch.arange(131072))).all()


def test_positions_seeds_and_tokens_are_unrelated():
    a = uniform(_keys(2000), torch.arange(50)).double()
    for other in (uniform(_keys(2000, 1235), torch.arange(50)), a.roll(1, 0), a.roll(1, 1)):
        pair = torch.stack((a.flatten(), other.double().flatten()))
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / a.numel() ** 0.5


def test_draws_follow_the_softmax():
    """Chi-square over 64 tokens and 200,000 positions."""
    logits = torch.randn(64, generator=torch.Generator().manual_seed(3)) * 2
    ids = torch.arange(64).expand(200_000, 64)
    got = torch.bincount(draw(logits.expand(200_000, 64), _keys(200_000), ids), minlength=64).double()
    expected = logits.double().softmax(-1) * 200_000
    chi = float(((got - expected) ** 2 / expected).sum())
    assert chi < 63 + 5 * (2 * 63) ** 0.5


def test_large_vocabulary_follows_the_softmax_and_never_picks_garbage():
    """Chi-square at V = 128k. Half of the mass lies on 16 tokens, half on the rest, but for a corner that has none.

    With u that can round to one, garbage from the corner comes about once in 250 draws.
    """
    vocab, draws = 131072, 1000
    logits = torch.zeros(vocab)
    logits[:16] = float(np.log(vocab / 2 / 16))
    logits[vocab // 2 :] = -60.0
    tokens = draw(logits.expand(draws, vocab), _keys(draws, 99))
    assert int(tokens.max()) < vocab // 2
    got = torch.cat((torch.bincount(tokens[tokens < 16], minlength=16), torch.bincount((tokens[tokens >= 16]) // 4096)))
    p = logits.double().softmax(-1)
    low = p[16:4096].sum()
    rest = p[4096:8192].sum()
    expected = torch.cat((p[:16], low[None], rest.expand(15))) * draws
    assert got.numel() == expected.numel()
    chi = float(((got - expected) ** 2 / expected).sum())
    assert chi < 31 + 5 * (2 * 31) ** 0.5


def test_candidates_and_whole_lines_agree():
    logits = torch.randn(20, 5000, generator=torch.Generator().manual_seed(0)) * 4
    keys = _keys(20)
    whole = draw(logits, keys)
    values, ids = logits.topk(700)
    shuffled = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    some = draw(values[:, shuffled], keys, ids[:, shuffled])
    inside = (ids == whole[:, None]).any(-1)
    assert inside.sum() > 10
    assert torch.equal(some[inside], whole[inside])
    assert torch.equal(torch.cat([draw(logits[i : i + 1], keys[i : i + 1]) for i in range(20)]), whole)
