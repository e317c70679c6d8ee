"""Facade: vllm.entrypoints.launchers.launcher."""
