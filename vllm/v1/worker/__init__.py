"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(
    __name__,
    "workers are those of vllm/worker, with another interface; use LLM.collective_rpc or LLM.apply_model. For "
    "logits processors use vllm.v1.sample.logits_processor.",
)
