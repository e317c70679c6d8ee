"""Facade: keeps `from vllm.renderers.hf import resolve_chat_template` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"resolve_chat_template": "vllm.entrypoints.helpers"})
