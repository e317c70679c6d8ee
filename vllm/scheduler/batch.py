"""The order in which a batch is queued whose answers are handed over together.

For: `LLM.generate`, which returns when the last answer is there. Longest bound first (LPT, Graham 1969): an answer of a
thousand tokens that gets its row last runs on alone when all others have ended, in steps that read all weights for it.
Does not know: texts, who waits. Called by: entrypoints.
"""

from collections.abc import Sequence as Items

from vllm.kv.groups import blocks_needed
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request


def longest_first(requests: Items[Request], limits: SchedulerPlan, kv: KVPlan) -> list[int]:
    """Indices of `requests` by the most tokens each may give, equal ones as they came.

    All of them as they came where that gains nothing (there is a row for everybody) or might cost more: if the cache
    cannot hold the longest together, they would lose their blocks and be computed again.
    """
    given = list(range(len(requests)))
    rows = limits.max_num_seqs
    if sum(request.sampling.n for request in requests) <= rows:
        return given
    order = sorted(given, key=lambda i: requests[i].prompt_len - requests[i].max_len)
    blocks = 0
    for i in order:
        siblings = min(rows, requests[i].sampling.n)
        blocks += siblings * blocks_needed(kv, requests[i].max_len)
        rows -= siblings
        if not rows:
            break
    return order if blocks < kv.num_blocks else given
