"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "logits processors are subclasses of vllm.v1.sample.logits_processor.LogitsProcessor here.")
