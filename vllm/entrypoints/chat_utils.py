"""Facade: keeps `from vllm.entrypoints.chat_utils import resolve_hf_chat_template` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"resolve_hf_chat_template": "vllm.entrypoints.helpers:resolve_chat_template"})
