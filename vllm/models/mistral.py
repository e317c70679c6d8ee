"""Mistral: Llama with a sliding window in every layer (version 0.1; later ones see everything)."""

from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("MistralForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    attention = gqa(c, window=c.said("sliding_window", 4096))
    return decoder(c, lambda i: Block(attention, mlp(c), norm(c), norm(c)), norm(c))


WEIGHTS = hf_weights()
TINY = tiny("mistral", sliding_window=12)
VARIANTS = ({"sliding_window": None, "head_dim": None},)
