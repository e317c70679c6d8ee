"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(
    __name__,
    "weights do not come over NCCL or IPC in this version; give them to LLM.llm_engine.load_weights, or "
    "change the folder and call reload_weights.",
)
