"""Facade: keeps `from vllm.logprobs import Logprob, PromptLogprobs, SampleLogprobs` alive."""

from vllm.util.facade import forward

_HOMES = {
    "Logprob": "vllm.outputs",
    "PromptLogprobs": "vllm.outputs",
    "SampleLogprobs": "vllm.outputs",
}
__getattr__ = forward(__name__, _HOMES)
