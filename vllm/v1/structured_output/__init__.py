"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "grammars are compiled by one backend; ask for them with SamplingParams(structured_outputs=...).")
