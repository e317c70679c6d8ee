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
    values, ids = measure(logits, tokens, max(counts), as_logits)
    out = entries(values.cpu(), ids.cpu(), [0 if w is not None else n for n, w in zip(counts, wanted, strict=True)])
    for n, asked in enumerate(wanted):
        if asked is not None:
            shift = 0.0 if as_logits else float(logits[n].logsumexp(-1))
            _add_asked(out[n], logits[n], shift, asked)
    return out


def measure(
    logits: torch.Tensor, tokens: torch.Tensor, most: int, as_logits: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [N, 1 + most] float32 and ids [N, 2 + most] int64 of lines: the chosen token's, then the `most` largest;
    last of all the chosen token's rank. Nothing here waits for the device.
    """
    shift = torch.zeros(logits.shape[0], device=logits.device) if as_logits else logits.logsumexp(-1)
    chosen = logits.gather(-1, tokens[:, None])
    ranks = (logits > chosen).sum(-1, keepdim=True) + 1
    values, ids = logits.topk(most, -1) if most else (logits[:, :0], ranks[:, :0])
    return torch.cat((chosen, values), -1) - shift[:, None], torch.cat((tokens[:, None], ids, ranks), -1)


def entries(values: torch.Tensor, ids: torch.Tensor, counts: list[int]) -> list[TokenLogprobs]:
    """What `measure` gave, on the host: an entry per line with its `counts[n]` most likely tokens."""
    out = []
    for v, i, count in zip(values.tolist(), ids.tolist(), counts, strict=True):
        out.append(TokenLogprobs(i[: count + 1], v[: count + 1], [i[-1], *range(1, count + 1)]))
    return out


def _add_asked(one: TokenLogprobs, line: torch.Tensor, shift: float, asked: list[int]) -> None:
    at = line[torch.tensor(asked, device=line.device)]
    one.ids.extend(asked)
    one.values.extend((at - shift).tolist())
    one.ranks.extend((line > value).sum().item() + 1 for value in at)
