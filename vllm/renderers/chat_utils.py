"""Facade: keeps `from vllm.renderers.chat_utils import load_chat_template` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"load_chat_template": "vllm.entrypoints.helpers"})
