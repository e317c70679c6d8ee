"""Log-probabilities (or logits) of chosen and most likely tokens, with ranks.

N lines, V vocabulary. A rank is one plus the number of tokens with a larger logit. Called by: sampler, prompt_logprobs.
"""

import torch

from vllm.protocol.step import TokenLogprobs

MODES = ("raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits")


def report(
    logits: torch.Tensor, tokens: torch.Tensor, nums: list[int], as_logits: bool, wanted: list[list[int] | None]
) -> list[TokenLogprobs]:
    """One entry per line of logits [N, V] float32: the chosen token [N], then the `nums[n]` most likely (-1: all).

    `wanted[n]` are ids to report in place of the most likely ones.
    """
    vocab = logits.shape[1]
    counts = [vocab if n < 0 else min(n, vocab) for n in nums]
    shift = torch.zeros(logits.shape[0], device=logits.device) if as_logits else logits.logsumexp(-1)
    chosen = logits.gather(-1, tokens[:, None])
    ranks = ((logits > chosen).sum(-1) + 1).tolist()
    most = max(counts)
    values, ids = logits.topk(most, -1) if most else (logits[:, :0], logits[:, :0])
    top_values, top_ids = (values - shift[:, None]).tolist(), ids.tolist()
    first_values, first_ids = (chosen[:, 0] - shift).tolist(), tokens.tolist()
    out = []
    for n, count in enumerate(counts):
        one = TokenLogprobs([first_ids[n]], [first_values[n]], [ranks[n]])
        asked = wanted[n]
        if asked is not None:
            _add_asked(one, logits[n], float(shift[n]), asked)
        else:
            one.ids.extend(top_ids[n][:count])
            one.values.extend(top_values[n][:count])
            one.ranks.extend(range(1, count + 1))
        out.append(one)
    return out


def _add_asked(one: TokenLogprobs, line: torch.Tensor, shift: float, asked: list[int]) -> None:
    at = line[torch.tensor(asked, device=line.device)]
    one.ids.extend(asked)
    one.values.extend((at - shift).tolist())
    one.ranks.extend((line > value).sum().item() + 1 for value in at)
