"""Facade: keeps `from vllm.entrypoints.chat_utils import load_chat_template, resolve_hf_chat_template` alive."""

from vllm.util.facade import forward

_HOMES = {
    "load_chat_template": "vllm.entrypoints.helpers",
    "resolve_hf_chat_template": "vllm.entrypoints.helpers:resolve_chat_template",
}
__getattr__ = forward(__name__, _HOMES)
