"""The only reader of the process environment.

For: debugging switches and the standard variables of the tools beneath us. What a user should choose is an argument,
never a variable: at most 20 of ours, pinned by tests/house. Does not know: what a value is used for.
Invariant: a name is declared here or cannot be read. Called by: everybody.
"""

import difflib
import os

# Ours: name -> what it does. A diff of this table is a change of the public surface.
DECLARED = {
    "VLLM_API_KEY": "the key that clients of the server must send, when --api-key is not given",
    "VLLM_BATCH_INVARIANT": "1 = deterministic mode, as LLM(deterministic=True)",
    "VLLM_CACHE_ROOT": "folder for compiled kernels and other caches; default XDG_CACHE_HOME/vllm or ~/.cache/vllm",
    "VLLM_CPU_KVCACHE_SPACE": "GiB of KV cache on the CPU; default from need and free memory",
    "VLLM_LOGGING_LEVEL": "DEBUG, INFO (default), WARNING or ERROR",
    "VLLM_PLATFORM": "cpu, cuda or rocm; default is the first one present",
    "VLLM_SERVER_DEV_MODE": "1 = the server has /sleep, /pause, /collective_rpc and their like",
    "VLLM_USE_MODELSCOPE": "1 = model ids are fetched from ModelScope",
}

# Other people's: read as they define them.
STANDARD = frozenset(
    {
        *("CI", "HOME", "NO_COLOR", "TERM", "XDG_CACHE_HOME"),
        *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        *("MODELSCOPE_CACHE", "MODELSCOPE_DOMAIN", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE"),
        *("CUDA_VISIBLE_DEVICES", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "TRITON_CACHE_DIR"),
        *("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"),
        *("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("CC", "OPENAI_API_KEY", "TPU_NAME", "WSL_DISTRO_NAME"),
    }
)

# Settings for compiling an engine. Nothing is compiled here, so they are accepted, never read, and said to be needless.
BUILD = frozenset(
    {
        *("CCACHE_DIR", "CMAKE_ARGS", "CMAKE_BUILD_PARALLEL_LEVEL", "CMAKE_BUILD_TYPE", "CMAKE_GENERATOR"),
        *("CUDA_HOME", "CUDA_PATH", "MAX_JOBS", "NVCC_THREADS", "SCCACHE_BUCKET_NAME", "TORCH_CUDA_ARCH_LIST"),
        *("USE_CCACHE", "USE_SCCACHE", "VLLM_BUILD_CORE_ONLY", "VLLM_BUILD_TEMP_DIR"),
        *(
            "VLLM_CUTLASS_SRC_DIR",
            "VLLM_DOCKER_BUILD_CONTEXT",
            "VLLM_FLASH_ATTN_SRC_DIR",
            "VLLM_INSTALL_PUNICA_KERNELS",
        ),
        *("VLLM_MAIN_CUDA_VERSION", "VLLM_PRECOMPILED_WHEEL_LOCATION", "VLLM_TARGET_DEVICE", "VLLM_USE_PRECOMPILED"),
    }
)

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


def text(name: str) -> str | None:
    """The value of a declared variable, None when it is unset or empty."""
    assert name in DECLARED or name in STANDARD, f"{name} is not declared in vllm/util/env.py"
    return os.environ.get(name) or None


def raw(name: str) -> str | None:
    """As text(), but a variable that is set to nothing is "": for the few where nothing is a choice."""
    assert name in DECLARED or name in STANDARD, f"{name} is not declared in vllm/util/env.py"
    return os.environ.get(name)


def is_set(name: str) -> bool:
    """Whether a declared variable has any value but one of those that mean no."""
    return (text(name) or "").strip().lower() not in _FALSE


def flag(name: str) -> bool:
    """A yes/no variable; unset is no. Raises ValueError for any other word."""
    value = (text(name) or "").strip().lower()
    if value not in _TRUE | _FALSE:
        raise ValueError(f"{name}={value!r} is neither yes (1, true, yes, on) nor no (0, false, no, off)")
    return value in _TRUE


def number(name: str) -> float | None:
    """A number >= 0, None when unset. Raises ValueError for anything else."""
    value = text(name)
    if value is None:
        return None
    try:
        parsed = float(value)
    except ValueError:
        parsed = -1.0
    if not 0 <= parsed < float("inf"):
        raise ValueError(f"{name}={value!r} is not a number >= 0")
    return parsed


def set_default(name: str, value: str) -> None:
    """Give a standard variable a value for libraries loaded later, unless the user has set one."""
    assert name in STANDARD, f"{name} is not a declared standard variable"
    os.environ.setdefault(name, value)


def for_child(**changes: str) -> dict[str, str]:
    """A copy of the whole environment for a process we start, with `changes` on top."""
    return {**os.environ, **changes}


# What scripts read of vLLM's own variables, and what they find where one is not set. None changes anything here.
_OF_VLLM: dict[str, str | int | bool | None] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": False,
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 5,
    "VLLM_USE_V1": True,
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def as_vllm(name: str) -> str | int | bool | None:
    """A VLLM_* variable as vLLM's own table would give it, as text where it is set to something unusual."""
    default, value = _OF_VLLM.get(name), os.environ.get(name)
    if value is None:
        return default
    if isinstance(default, bool):
        return value.lower() in _TRUE
    return int(value) if isinstance(default, int) and value.isdigit() else value


def build_settings() -> list[str]:
    """Names of the settings for compiling that are set, sorted."""
    return sorted(name for name in BUILD if name in os.environ)


def unknown() -> list[str]:
    """One sentence for each VLLM_* variable that is set but means nothing to us."""
    sentences = []
    for name in sorted(os.environ):
        if name.startswith("VLLM_") and name not in DECLARED and name not in BUILD:
            near = difflib.get_close_matches(name, DECLARED, n=1)
            sentences.append(
                f"{name} is set but unknown here and ignored" + (f"; did you mean {near[0]}?" if near else "")
            )
    return sentences
