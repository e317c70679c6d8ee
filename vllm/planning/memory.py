"""Bytes of a network on one rank, from its description alone: weights exactly, activations of the largest step at most.

Does not know files or devices. Called by: resolve, cache, `vllm plan`.
"""

from vllm.parts.checkpoint import Weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.ffn import MLP, MoE
from vllm.parts.foreign import Foreign
from vllm.parts.tensors import TensorSpec, num_parameters, stage_tensors
from vllm.protocol.plan import Stored
from vllm.protocol.sizes import TOTALS
from vllm.quantization.forms import LINEARS, forms
from vllm.quantization.read import METHODS

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


Network = Decoder | Foreign


def count_parameters(network: Network) -> int:
    """Exact count of parameters, tied ones once."""
    return network.num_parameters if isinstance(network, Foreign) else num_parameters(network)


def weight_bytes(
    decoder: Network,
    dtype: str,
    tp_size: int,
    pp_size: int,
    quantization: str = "none",
    weights: Weights | None = None,
    stored: Stored | None = None,
) -> int:
    """Bytes of the parameters on the rank that holds most. `weights` and `stored` matter for fp8 checkpoints alone."""
    if isinstance(decoder, Foreign):
        return decoder.num_parameters * ITEMSIZE[dtype]
    stages = [
        _stage_bytes(stage_tensors(decoder, pp_size, stage), dtype, tp_size, quantization, weights, stored)
        for stage in range(pp_size)
    ]
    return max(stages)


def _stage_bytes(
    specs: list[TensorSpec],
    dtype: str,
    tp_size: int,
    quantization: str,
    weights: Weights | None,
    stored: Stored | None,
) -> int:
    method = None if quantization == "none" else METHODS.load(quantization)
    packed = forms(specs, weights, stored, tp_size) if method is not None and method.AT_LOAD else {}
    total = 0
    for spec in specs:
        shape, numel = spec.local_shape(tp_size, 0), 1
        for size in shape:
            numel *= size
        if spec.name in packed:
            total += packed[spec.name].bytes(tp_size)
        elif method is not None and not method.AT_LOAD and spec.name.endswith(LINEARS):
            total += int(method.packed_bytes(shape[0], numel // shape[0]))
        else:
            total += numel * ITEMSIZE[dtype]
    return total


def activation_bytes(decoder: Network, dtype: str, num_tokens: int, num_lines: int, tp_size: int) -> int:
    """Bytes that a step of `num_tokens` query tokens and `num_lines` lines of logits holds at once, at most."""
    per_token = (4 * decoder.hidden + widest_moment(decoder, tp_size)[0]) * ITEMSIZE[dtype]
    logits = 2 * 4 * num_lines * decoder.vocab
    return num_tokens * per_token + logits


def widest_moment(network: Network, tp_size: int) -> tuple[int, int]:
    """(elements per token of the widest moment of a block, of them the widest input of a map)."""
    if isinstance(network, Foreign):
        return network.widest, network.widest // 3
    blocks = dict.fromkeys(network.blocks)
    return max(_widest(block, tp_size) for block in blocks), max(_input(block, tp_size) for block in blocks)


def _input(block: Block, tp_size: int) -> int:
    heads, ffn = block.mixer.heads, block.ffn
    inner = ffn.inter if isinstance(ffn, MLP) else ffn.expert.inter
    return max(heads.num * heads.dim, inner) // tp_size


_SLICE = 512
"""Lines of logits at most where a prompt's log-probabilities are made."""
_LONGS = 8
"""Numbers that a token of a recorded step is described by, with six groups of the cache."""
_WORKSPACE = 128 << 20
"""What libraries keep for themselves on a GPU."""


def gpu_step_bytes(decoder: Network, dtype: str, num_tokens: int, num_seqs: int, tp_size: int) -> tuple[int, int, int]:
    """On a GPU: bytes of the largest step, of the largest recorded one, and of what the device keeps of rows."""
    lines = max(min(num_seqs, num_tokens), min(_SLICE, num_tokens))
    # why: 16 bytes a logit: as it comes, in float32, a copy that options leave alone, and its sum of exponents
    step = activation_bytes(decoder, dtype, num_tokens, 2 * lines, tp_size) + _WORKSPACE
    recorded = min(_SLICE, num_seqs * 4 // 3 + 8)
    graph = max(
        activation_bytes(decoder, dtype, recorded, recorded, tp_size),
        activation_bytes(decoder, dtype, TOTALS[-1], 0, tp_size),
    )
    kept = (num_seqs + 1) * decoder.vocab * 2 + (max(4, num_seqs // 8) + 1 + recorded) * decoder.vocab * 4
    kept += TOTALS[-1] * (decoder.hidden * ITEMSIZE[dtype] + 8 * _LONGS)
    return step, graph + _WORKSPACE, kept


def _widest(block: Block, tp_size: int) -> int:
    heads = block.mixer.heads
    return max((2 * heads.num + 2 * heads.num_kv) * heads.dim // tp_size, _inner(block.ffn, tp_size))


def _inner(ffn: MLP | MoE, tp_size: int) -> int:
    if isinstance(ffn, MLP):
        return (2 + ffn.gated) * ffn.inter // tp_size
    shared = _inner(ffn.shared, tp_size) if ffn.shared else 0
    return ffn.top_k * (3 * ffn.expert.inter // tp_size + ffn.expert.hidden) + 4 * ffn.num_experts + shared
