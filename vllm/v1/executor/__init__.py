"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "executors are those of vllm/executor, with another interface; use LLM.collective_rpc.")
