"""A head's rows: what was read before a preemption does not count, and states behind the prompt never do."""

import pytest
import torch

from vllm.features.pooling.device import PoolingHead
from vllm.features.pooling.manifest import KEY
from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Head
from vllm.sampling_params import SamplingParams

STATES = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
WANT = {"last": STATES[6], "cls": STATES[0], "mean": STATES[:7].mean(0), "all": STATES[:7].flatten()}


def opened(kind: str) -> PoolingHead:
    head = PoolingHead()
    features = {KEY: {"kind": kind, "normalize": False, "dimensions": None}}
    given = {"num_computed": 0, "block_ids": [[]], "sampling": SamplingParams(), "seed": 0, "max_len": 8}
    row = RowOpen(3, 100, 0, list(range(7)), 7, stop_ids=frozenset(), features=features, **given)
    assert isinstance(head, Head) and head.wants(row)
    head.open(row)
    assert head.read(3, 0, STATES[5:8]) is None
    head.close(3)
    head.open(row)
    return head


@pytest.mark.parametrize("kind", WANT)
@pytest.mark.parametrize("chunks", [[9], [3, 6], [1] * 9, [6, 1, 2]])
def test_any_chunks_give_the_same(kind, chunks):
    head, first, found = opened(kind), 0, []
    for n in chunks:
        found.append(head.read(3, first, STATES[first : first + n]))
        first += n
    vectors = [one for one in found if one is not None]
    assert len(vectors) == 1
    got = torch.frombuffer(bytearray(vectors[0]), dtype=torch.float32)
    assert torch.allclose(got, WANT[kind], atol=1e-6)
