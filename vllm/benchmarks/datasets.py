"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "`vllm bench throughput` and `vllm bench serve` make random prompts and read ShareGPT's file.")
