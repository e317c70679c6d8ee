"""Facade: keeps `from vllm.v1.sample.logits_processor.builtin import process_dict_updates` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"process_dict_updates": "vllm.sampling.custom"})
