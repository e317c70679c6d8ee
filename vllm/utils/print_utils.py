"""Facade: keeps `from vllm.utils.print_utils import print_embeddings` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"print_embeddings": "vllm.entrypoints.odds"})
