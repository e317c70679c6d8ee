"""Facade: keeps `from vllm.transformers_utils.tokenizer import get_tokenizer` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"get_tokenizer": "vllm.entrypoints.helpers"})
