"""quantization="int8": linear maps run on int8 weights and the answer stays close; the router stays exact."""

import pytest
import torch

from tests.unit.worker.helpers import make_host, random_weights, tiny_llama
from vllm.sampling_params import SamplingParams

PROMPT = list(range(1, 40))


def _values(quantization, kernels):
    """Raw logits of the whole vocabulary after the prompt, by token id."""
    decoder = tiny_llama()
    plan = {"quantization": quantization, "kernels": kernels, "logprobs_mode": "raw_logits"}
    host = make_host(decoder, weights=random_weights(decoder), **plan)
    host.open(0, PROMPT, SamplingParams(temperature=0, logprobs=-1, max_tokens=4))
    (one,) = host.step((0, len(PROMPT))).logprobs[0]
    values = torch.empty(decoder.vocab)
    values[torch.tensor(one.ids[1:])] = torch.tensor(one.values[1:])
    return values


@pytest.mark.parametrize("kernels", [{}, {"*": "reference"}], ids=["best", "reference"])
def test_int8_weights_give_nearly_the_same_logits(kernels):
    exact, coarse = _values("none", kernels), _values("int8", kernels)
    error = float((exact - coarse).norm() / exact.norm())
    assert 1e-4 < error < 0.05
