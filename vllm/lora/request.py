"""Facade: keeps `from vllm.lora.request import LoRARequest` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"LoRARequest": "vllm.inputs"})
