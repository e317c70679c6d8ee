"""Bytes of an engine on a CPU beside weights and cache, as the operating system counts them.

    fixed   what libraries, compiled kernels and the engine's own objects take; the tokenizer; tables of positions
    step    the larger of: a layer's intermediate results for the largest step; logits and what sampling copies of them
    load    what the weights take at the worst moment, where they are quantized as they come

Measured with PSS (tests/e2e/test_planned_bytes.py), which also holds it. Called by: resolve.
"""

from dataclasses import dataclass

from vllm.config.args import EngineArgs
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import tensors
from vllm.planning.memory import ITEMSIZE, Network, widest_moment
from vllm.protocol.facts import DeviceFacts
from vllm.quantization.forms import LINEARS

_LIBRARIES = 116 << 20
"""Pages of torch that its work touches, the compiler of kernels, what they compiled, the engine's rooms."""
_INT8, _INT8_STEP = 20 << 20, 32 << 20
"""What int8 adds, measured: kernels of its own; holes that its activations, in other sizes, leave in the heap."""
_LAYER = 1 << 20
"""What a layer keeps beside its weights: kernels of its shapes, recorded steps, tails of its packed maps."""
_WORD = 720
"""Bytes of a tokenizer for each entry of its vocabulary (byte-level BPE of 32 and 152 thousand entries)."""
_KEPT = 64 << 20
"""What the C library keeps of memory that a step gave back: pieces below 32 MiB, twice that at the end of its heap."""
_WHOLE = 4
"""Whole maps at once while others are packed: the one being packed, its packed forms, and two that are read ahead."""
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
    if quantization == "int8":
        work, fixed = work + _INT8_STEP, fixed + _INT8
    if not args.skip_tokenizer_init:
        fixed += _WORD * network.vocab
    if isinstance(network, Decoder):
        ropes = {block.mixer.rope for block in network.blocks if block.mixer.rope is not None}
        fixed += sum(step.max_len * rope.dim * 4 for rope in ropes)
    return work, fixed


def load_bytes(network: Network, dtype: str, quantization: str, weights: int, ranks: int) -> int:
    """What weights take on a rank at the worst moment of loading; 0: no more than later.

    Those that are quantized here are read one after the other (loading/one_by_one.py): some are whole at once.
    """
    if quantization != "int8" or not isinstance(network, Decoder):
        return 0
    largest = max(spec.numel for spec in tensors(network) if spec.name.endswith(LINEARS))
    return weights + _WHOLE * largest * ITEMSIZE[dtype] // ranks
