"""Facade: vllm.entrypoints.serve.utils.api_utils."""
