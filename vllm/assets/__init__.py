"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "only text is read in this version; leave images, audio and video out.")
