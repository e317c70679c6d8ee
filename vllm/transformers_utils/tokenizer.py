"""Facade: keeps names of vLLM's vllm.transformers_utils.tokenizer alive."""

from vllm.util.facade import forward

_HOMES = {
    "AnyTokenizer": "vllm.tokenizer.tokenizer:Tokenizer",
    "cached_get_tokenizer": "vllm.entrypoints.helpers:get_tokenizer",
    "get_tokenizer": "vllm.entrypoints.helpers",
}
__getattr__ = forward(__name__, _HOMES)
