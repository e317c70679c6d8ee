"""The least time a device needs for a step: each byte read once, each product computed once, nothing else.

    decode step   weights that are hit / bandwidth (or their products / arithmetic) + keys and values likewise
    prefill       products of the layers / arithmetic + causal attention; the head for last tokens alone

`known.py` has what datasheets promise; what programs have been seen to reach of it is taken here. Does not know files.
Called by: `vllm bench engine`.
"""

from vllm.kv.groups import ITEMSIZE
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import tensors
from vllm.planning.known import MATH_SEEN, READ_SEEN, known_card
from vllm.planning.outlook import share_read
from vllm.planning.pace import active_parameters
from vllm.planning.plan import Plan
from vllm.protocol.facts import DeviceFacts


def reachable(device: DeviceFacts, quantization: str) -> tuple[float, float] | None:
    """(bytes, operations) a second that this device can reach; None where that is not known."""
    found = known_card(device)
    if found is None:
        return None
    one = found[1]
    math = one.fp8 if quantization == "fp8" and one.fp8 else one.half
    return one.read * 1e12 * READ_SEEN, math * 1e12 * MATH_SEEN


def decode_floor(plan: Plan, network: Decoder, speed: tuple[float, float], num: int, length: int) -> float:
    """Seconds of a step of `num` sequences that have `length` tokens each."""
    read, math = speed
    ranks = plan.worker.tp_size * plan.worker.pp_size
    weights = plan.memory.weights * share_read(network, num) - _table_bytes(plan, network)
    products = 2.0 * num * active_parameters(network) / ranks
    keys = num * _attention(plan, network, length)[0] / ranks
    scores = num * _attention(plan, network, length)[1] / ranks
    return max(weights / read, products / math) + max(keys / read, scores / math)


def prefill_floor(plan: Plan, network: Decoder, speed: tuple[float, float], num: int, length: int) -> float:
    """Seconds in which `num` prompts of `length` tokens are computed, and one token of each."""
    ranks = plan.worker.tp_size * plan.worker.pp_size
    head = network.vocab * network.embed.dim
    layers = 2.0 * num * length * (active_parameters(network) - head)
    scores = num * length * _attention(plan, network, length)[1] / 2
    return (layers + 2.0 * num * head + scores) / ranks / speed[1]


def _attention(plan: Plan, network: Decoder, length: int) -> tuple[float, float]:
    """(bytes read, operations) of one query token that sees `length` tokens, over all layers."""
    each = ITEMSIZE[plan.kv.dtype]
    read = math = 0.0
    for block in network.blocks:
        seen = min(length, block.mixer.window or length)
        read += seen * 2 * block.mixer.heads.num_kv * block.mixer.heads.dim * each
        math += 4.0 * seen * block.mixer.heads.num * block.mixer.heads.dim
    return read, math


def _table_bytes(plan: Plan, network: Decoder) -> int:
    """Bytes on a rank of the token table, which a step only picks lines from, where the head is another."""
    if network.head.tied:
        return 0
    table = next(spec.numel for spec in tensors(network) if spec.name == "embed.weight")
    return table * ITEMSIZE[plan.worker.dtype] // plan.worker.tp_size
