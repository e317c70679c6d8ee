"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(
    __name__,
    "chat families are described in vllm/formats; choose one with reasoning_parser. Plug-ins are not in this version.",
)
