"""Bytes of an engine on a CPU beside weights and cache, as the operating system counts them.

    fixed   what libraries, compiled kernels and the engine's own objects take; the tokenizer; tables of positions
    step    the larger of: a layer's intermediate results for the largest step; logits and what sampling copies of them
    load    what the weights take before they are quantized

Measured with PSS (tests/e2e/test_planned_bytes.py), which also holds it. Called by: resolve.
"""

from dataclasses import dataclass

from vllm.config.args import EngineArgs
from vllm.parts.decoder import Decoder
from vllm.parts.foreign import Foreign
from vllm.planning.memory import ITEMSIZE, Network, count_parameters, widest_moment
from vllm.protocol.facts import DeviceFacts

_LIBRARIES = 116 << 20
"""Pages of torch that its work touches, the compiler of kernels, what they compiled, the engine's rooms."""
_LAYER = 1 << 20
"""What a layer keeps beside its weights: kernels of its shapes, recorded steps, tails of its packed maps."""
_WORD = 720
"""Bytes of a tokenizer for each entry of its vocabulary (byte-level BPE of 32 and 152 thousand entries)."""
_KEPT = 64 << 20
"""What the C library keeps of memory that a step gave back: pieces below 32 MiB, twice that at the end of its heap."""
_PORTION, _COPIES = 16, 6
"""Lines that the sampler cuts at a time (sampling/sampler.py), and how often it holds them."""


@dataclass(frozen=True, slots=True)
class Step:
    """The largest step."""

    tokens: int
    lines: int
    """Most lines of logits."""
    max_len: int


def host_bytes(
    args: EngineArgs, network: Network, dtype: str, quantization: str, step: Step, device: DeviceFacts
) -> tuple[int, int]:
    """(a step, fixed) on one rank of this CPU."""
    tp = args.tensor_parallel_size
    spreads = (dtype == "bfloat16" and not device.bf16) or (quantization == "int8" and not device.int8)
    widest, inner = widest_moment(network, tp)
    each = (4 * network.hidden + widest) * ITEMSIZE[dtype] + (4 * inner if spreads else 0)
    logits = max(2 * step.lines + _COPIES * min(step.lines, _PORTION), 2 * _PORTION) * network.vocab * 4
    work = max(step.tokens * each, 2 * step.tokens * network.hidden * ITEMSIZE[dtype] + logits)
    work += min(work, _KEPT)
    fixed = _LIBRARIES + _LAYER * len(network.kv_kinds()) // args.pipeline_parallel_size
    if not args.skip_tokenizer_init:
        fixed += _WORD * network.vocab
    if isinstance(network, Decoder):
        ropes = {block.mixer.rope for block in network.blocks if block.mixer.rope is not None}
        fixed += sum(step.max_len * rope.dim * 4 for rope in ropes)
    return work, fixed


def load_bytes(network: Network, dtype: str, quantization: str, weights: int, ranks: int) -> int:
    """What weights take on a rank before what they came from is given back: quantized here, they come whole first."""
    if quantization != "int8" or isinstance(network, Foreign):
        return 0
    whole = count_parameters(network) * ITEMSIZE[dtype] // ranks
    return whole + max(0, whole - weights) // (ITEMSIZE[dtype] - 1)
