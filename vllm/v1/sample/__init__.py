"""Facade: vllm.v1.sample.logits_processor."""
