"""Bytes of a network on one rank, from its description alone: weights exactly, activations of the largest step at most.

Does not know files or devices. Called by: resolve, cache, `vllm plan`.
"""

from vllm.parts.decoder import Block, Decoder
from vllm.parts.ffn import MLP, MoE
from vllm.parts.foreign import Foreign
from vllm.parts.tensors import TensorSpec, num_parameters, stage_tensors
from vllm.util.catalog import Catalogue

METHODS = Catalogue("vllm.quantization", "quantization method")
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


Network = Decoder | Foreign


def count_parameters(network: Network) -> int:
    """Exact count of parameters, tied ones once."""
    return network.num_parameters if isinstance(network, Foreign) else num_parameters(network)


def weight_bytes(decoder: Network, dtype: str, tp_size: int, pp_size: int, quantization: str = "none") -> int:
    """Bytes of the parameters on the rank that holds most."""
    if isinstance(decoder, Foreign):
        return decoder.num_parameters * ITEMSIZE[dtype]
    stages = [
        sum(_bytes(spec, dtype, tp_size, quantization) for spec in stage_tensors(decoder, pp_size, stage))
        for stage in range(pp_size)
    ]
    return max(stages)


def _bytes(spec: TensorSpec, dtype: str, tp_size: int, quantization: str) -> int:
    shape, numel = spec.local_shape(tp_size, 0), 1
    for size in shape:
        numel *= size
    if quantization != "none":
        method = METHODS.load(quantization)
        if spec.name.endswith(method.LINEARS):
            return int(method.packed_bytes(shape[0], numel // shape[0]))
    return numel * ITEMSIZE[dtype]


def activation_bytes(decoder: Network, dtype: str, num_tokens: int, num_lines: int, tp_size: int) -> int:
    """Bytes that a step of `num_tokens` query tokens and `num_lines` lines of logits holds at once, at most."""
    if isinstance(decoder, Foreign):
        widest = decoder.widest
    else:
        widest = max(_widest(block, tp_size) for block in dict.fromkeys(decoder.blocks))
    per_token = (4 * decoder.hidden + widest) * ITEMSIZE[dtype]
    logits = 2 * 4 * num_lines * decoder.vocab
    return num_tokens * per_token + logits


def _widest(block: Block, tp_size: int) -> int:
    """Elements per token of the widest moment of a block."""
    heads = block.mixer.heads
    return max((2 * heads.num + 2 * heads.num_kv) * heads.dim // tp_size, _inner(block.ffn, tp_size))


def _inner(ffn: MLP | MoE, tp_size: int) -> int:
    if isinstance(ffn, MLP):
        return (2 + ffn.gated) * ffn.inter // tp_size
    shared = _inner(ffn.shared, tp_size) if ffn.shared else 0
    return ffn.top_k * (3 * ffn.expert.inter // tp_size + ffn.expert.hidden) + 4 * ffn.num_experts + shared
