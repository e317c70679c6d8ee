"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "speculation is not in this version; it changes speed and never tokens, so leave it out.")
