"""Facade: keeps `from vllm.distributed.parallel_state import destroy_model_parallel` alive."""

from vllm.util.facade import forward

_NAMES = ("cleanup_dist_env_and_memory", "destroy_distributed_environment", "destroy_model_parallel")
__getattr__ = forward(__name__, dict.fromkeys(_NAMES, "vllm.entrypoints.odds"))
