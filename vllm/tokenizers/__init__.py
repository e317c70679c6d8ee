"""Facade: keeps `from vllm.tokenizers import TokenizerLike, cached_get_tokenizer, get_tokenizer` alive."""

from vllm.util.facade import forward

_HOMES = {
    "TokenizerLike": "vllm.tokenizer.tokenizer:Tokenizer",
    "cached_get_tokenizer": "vllm.entrypoints.helpers:get_tokenizer",
    "get_tokenizer": "vllm.entrypoints.helpers",
}
__getattr__ = forward(__name__, _HOMES)
