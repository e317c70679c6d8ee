"""Sections of the Plan that rooms on both sides of the bridge read. Frozen, complete: no "auto", no None for a default.

`planning.resolve` makes them; constructors get the section they need, never the whole Plan.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SchedulerPlan:
    """Limits of a step and the order of the waiting."""

    max_num_seqs: int
    """Rows of the worker: most sequences running at once."""
    max_num_batched_tokens: int
    """Most query tokens in one step."""
    max_model_len: int
    policy: str = "fcfs"
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    """Most query tokens of one sequence in one step; 0 means no cap but the budget."""
    run_ahead: int = 0
    """Steps that may be planned before the result of the oldest is known (0: synchronous)."""
    max_tokens_per_step: int = 1
    """Most tokens one sequence can gain in a step (1 + most draft tokens)."""
    step_seconds: float = 0.0
    """Target time of a step in which sequences decode; prefill beside them is cut to keep it. 0: no target."""
    step_base_seconds: float = 0.0
    """Predicted time of a step: this, and"""
    step_token_seconds: float = 0.0
    """this for each query token. Both are corrected by what steps really take."""
    fills_sizes: bool = False
    """Steps that the target cuts have the sizes of protocol/sizes.py, which the worker has recorded."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker is built from, beside the description and the KV plan."""

    device: str
    """`cpu` or `cuda:N`."""
    dtype: str
    """bfloat16, float16 or float32: weights and activations."""
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    deterministic: bool = False
    num_threads: int = 0
    kernels: dict[str, str] = field(default_factory=dict)
    """op name -> kernel name (`reference` is always there)."""
    quantization: str = "none"
    """`none` or the method (vllm/quantization) by which linear maps are kept."""
    weight_block: tuple[int, int] = (0, 0)
    """Rows and columns of a weight that share a scale, where the method has such blocks."""
    logprobs_mode: str = "raw_logprobs"
    max_logprobs: int = 20
    enforce_eager: bool = False
    step_bytes: int = 0
    """Memory that a step needs beside weights and cache, taken before the first one; 0: as it comes."""
    graph_bytes: int = 0
    """The same for steps that are recorded, which have memory of their own."""
    tp_size: int = 1
    tp_rank: int = 0
    pp_size: int = 1
    pp_rank: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """How a quantized checkpoint keeps its linear maps, as config.json says it."""

    said: str
    """What config.json calls the format, for messages."""
    method: str
    """The method (vllm/quantization) that runs such weights."""
    block: tuple[int, int] = (0, 0)
    """Rows and columns that share a scale; (0, 0): one scale per row or per tensor."""
    static: bool = False
    """The checkpoint holds one scale for the inputs of each map; else they are scaled as they come."""
    ignore: tuple[str, ...] = ()
    """Modules that are not quantized: names, or `re:` and an expression."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Where the weights come from."""

    path: str
    """A local folder (already resolved from a hub id or cache layout)."""
    load_format: str = "auto"
    """auto, safetensors, pt or dummy."""
    seed: int = 0
    stored: Stored | None = None
    """How a quantized checkpoint keeps its weights; None for one that is not quantized."""
