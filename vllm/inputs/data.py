"""Facade: keeps `from vllm.inputs.data import EmbedsPrompt, PromptType, TextPrompt, TokensPrompt` alive."""

from vllm.util.facade import forward

_NAMES = (
    "EmbedsPrompt",
    "PromptType",
    "TextPrompt",
    "TokensPrompt",
)
__getattr__ = forward(__name__, dict.fromkeys(_NAMES, "vllm.inputs"))
