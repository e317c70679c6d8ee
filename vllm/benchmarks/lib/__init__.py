"""Facade: vllm.benchmarks.lib.utils."""
