"""vLLM's variables as attributes: `import vllm.envs as envs; envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE`."""

from typing import Any

from vllm.util import env


def __getattr__(name: str) -> Any:
    if not name.startswith("VLLM_"):
        raise AttributeError(f"module 'vllm.envs' has no attribute {name!r}")
    return env.as_vllm(name)
