"""Facade: vLLM's measurements; the real ones are in vllm/entrypoints/bench."""
