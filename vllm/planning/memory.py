"""Bytes of a network on one rank, from its description alone: weights, activations of the largest step, KV cache.

Does not know files or devices. Invariant: weight bytes are exact. Called by: resolve, `vllm plan`.
"""

from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MoE
from vllm.parts.foreign import Foreign
from vllm.parts.tensors import stage_tensors

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


def weight_bytes(decoder: Decoder | Foreign, dtype: str, tp_size: int, pp_size: int) -> int:
    """Bytes of the parameters on the rank that holds most."""
    if isinstance(decoder, Foreign):
        return decoder.num_parameters * ITEMSIZE[dtype]
    most = 0
    for stage in range(pp_size):
        total = 0
        for spec in stage_tensors(decoder, pp_size, stage):
            n = 1
            for size in spec.local_shape(tp_size, 0):
                n *= size
            total += n
        most = max(most, total)
    return most * ITEMSIZE[dtype]


def activation_bytes(decoder: Decoder | Foreign, dtype: str, num_tokens: int, num_lines: int, tp_size: int) -> int:
    """Bytes that a step of `num_tokens` query tokens and `num_lines` lines of logits holds at once, at most."""
    if isinstance(decoder, Foreign):
        widest, blocks = decoder.widest, ()
    else:
        widest, blocks = 0, decoder.blocks
    for block in blocks:
        h, ffn = block.mixer.heads, block.ffn
        mixer = (2 * h.num + 2 * h.num_kv) * h.dim // tp_size
        if isinstance(ffn, MoE):
            inner = 3 * ffn.expert.inter * ffn.top_k // tp_size + ffn.top_k * decoder.hidden
        else:
            inner = (2 + ffn.gated) * ffn.inter // tp_size
        widest = max(widest, mixer, inner)
    per_token = (4 * decoder.hidden + widest) * ITEMSIZE[dtype]
    logits = 2 * 4 * num_lines * decoder.vocab
    return num_tokens * per_token + logits
