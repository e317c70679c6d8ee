"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "ranks talk through torch.distributed; use its process groups.")
