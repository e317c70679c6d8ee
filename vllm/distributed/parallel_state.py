"""Facade: keeps `from vllm.distributed.parallel_state import cleanup_dist_env_and_memory` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"cleanup_dist_env_and_memory": "vllm.entrypoints.odds"})
