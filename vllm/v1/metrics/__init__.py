"""Facade: vllm.v1.metrics.reader."""
