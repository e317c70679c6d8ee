"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(
    __name__,
    "networks are described in vllm/models and run by vllm/layers; LLM.apply_model gives the running one. "
    "Model classes, custom layers and the sharded_state, tensorizer and bitsandbytes loaders are not here; "
    "load a folder of safetensors.",
)
