"""Facade: vllm.usage.usage_lib."""
