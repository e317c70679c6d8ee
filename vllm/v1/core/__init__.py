"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "the scheduler and the cache are those of vllm/scheduler and vllm/kv, with another interface.")
