"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "kernels are chosen from vllm/ops; `vllm plan --ops` lists them.")
