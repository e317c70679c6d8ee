"""From what the user said and what is true to a Plan: every automatic knob decided once, here, with its reason.

Raises ValueError (errors.py) for what cannot be: a model that does not fit (with what would), a size that cannot be
split, a method that the device lacks. Does not know files or torch. Called by: assembly, `vllm plan`.
"""

from dataclasses import dataclass, field, replace

from vllm.config.args import EngineArgs
from vllm.errors import CapacityError, RefusedError, ValidationError
from vllm.kv.groups import bytes_needed, make_kv_plan, max_tokens_that_fit
from vllm.parts.decoder import Decoder
from vllm.parts.foreign import Foreign
from vllm.parts.tensors import num_parameters
from vllm.planning.memory import activation_bytes, weight_bytes
from vllm.planning.plan import Memory, Plan
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import LoadPlan, SchedulerPlan, WorkerPlan
from vllm.util import env
from vllm.util.arith import human_bytes

_DTYPES = {"half": "float16", "float": "float32"}
_FIXED_BYTES = {"cpu": 200 << 20, "cuda": 1 << 30}
_BLOCK_SIZE = 64
_SMALL_WEIGHTS = 64 << 20
_USUAL_LEN = 1024
"""Tokens per sequence that the default CPU cache is made for."""


@dataclass(slots=True)
class _Choices:
    """Notes of what was decided for the user."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, knob: str, value: object, why: str) -> None:
        self.rows.append((knob, str(value), why))


def resolve(
    args: EngineArgs,
    architecture: str,
    decoder: Decoder | Foreign,
    path: str,
    checkpoint_dtype: str,
    device: DeviceFacts,
) -> Plan:
    """The Plan for one network on devices like `device`. `checkpoint_dtype` is what config.json says of the weights."""
    chosen = _Choices()
    dtype = _dtype(args, checkpoint_dtype, device, chosen)
    tp, pp = args.tensor_parallel_size, args.pipeline_parallel_size
    if isinstance(decoder, Foreign):
        _check_foreign(args, chosen)
    else:
        _check_split(decoder, tp, pp)
    scheduler = _scheduler(args, decoder, device, chosen)
    weights = weight_bytes(decoder, dtype, tp, pp)
    lines = min(scheduler.max_num_seqs, scheduler.max_num_batched_tokens)
    activations = activation_bytes(decoder, dtype, scheduler.max_num_batched_tokens, lines, tp)
    spent = Memory(weights, 0, activations, _FIXED_BYTES[device.kind])
    kv = _kv_plan(args, decoder, dtype, scheduler, spent, device, chosen)
    most = max_tokens_that_fit(kv)
    scheduler = _fit_context(args, scheduler, kv, most, chosen)
    worker = WorkerPlan(
        device="cpu" if device.kind == "cpu" else "cuda:0",
        dtype=dtype,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_model_len=scheduler.max_model_len,
        deterministic=args.deterministic,
        num_threads=_num_threads(weights, device, chosen),
        quantization=_quantization(args, device, chosen),
        logprobs_mode=args.logprobs_mode,
        max_logprobs=args.max_logprobs,
        enforce_eager=args.enforce_eager,
        tp_size=tp,
        pp_size=pp,
    )
    return Plan(
        architecture=architecture,
        num_parameters=decoder.num_parameters if isinstance(decoder, Foreign) else num_parameters(decoder),
        scheduler=scheduler,
        worker=worker,
        kv=kv,
        load=LoadPlan(path, "auto" if args.load_format == "hf" else args.load_format, args.seed),
        memory=replace(spent, kv=kv.total_bytes),
        max_tokens_in_cache=most,
        choices=tuple(chosen.rows),
    )


def _dtype(args: EngineArgs, checkpoint: str, device: DeviceFacts, chosen: _Choices) -> str:
    said = _DTYPES.get(args.dtype, args.dtype)
    if said != "auto":
        if device.kind == "cpu" and said == "float16":
            raise RefusedError(
                "dtype float16 is slow and inexact on a CPU; take bfloat16, float32 or auto.", field="dtype", value=said
            )
        return said
    if device.kind == "cpu":
        took = "bfloat16" if device.bf16 and checkpoint != "float32" else "float32"
        fast = "has" if device.bf16 else "has no"
        chosen.note("dtype", took, f"the checkpoint is {checkpoint} and this CPU {fast} bfloat16 instructions")
        return took
    took = "bfloat16" if checkpoint == "float32" else checkpoint
    chosen.note("dtype", took, f"the checkpoint is {checkpoint}")
    return took


def _quantization(args: EngineArgs, device: DeviceFacts, chosen: _Choices) -> str:
    said = args.quantization
    if said in (None, "none"):
        return "none"
    if said != "int8" or device.kind != "cpu":
        raise RefusedError(
            f"quantization {said!r} is not supported on {device.kind} yet; on a CPU int8 is.",
            field="quantization",
            value=said,
        )
    if not device.int8:
        chosen.note("quantization", said, "this CPU has no VNNI instructions, so int8 saves memory but is slow")
    return said


def _num_threads(weights: int, device: DeviceFacts, chosen: _Choices) -> int:
    """CPU threads of one worker. OMP_NUM_THREADS wins; a network of a few megabytes is faster without company."""
    asked = env.number("OMP_NUM_THREADS")
    if asked:
        return max(1, int(asked))
    if device.kind == "cpu" and weights < _SMALL_WEIGHTS:
        # why: its kernels last microseconds, and a thread that waits for another's time slice waits milliseconds
        chosen.note("threads", 1, f"the weights are only {human_bytes(weights)}")
        return 1
    return device.num_cores


def _check_foreign(args: EngineArgs, chosen: _Choices) -> None:
    """What our own layers would do and transformers' cannot is refused."""
    chosen.note("model_impl", "transformers", "the network's own code runs on our cache; our layers would be faster")
    asks = (
        ("tensor_parallel_size", args.tensor_parallel_size, args.tensor_parallel_size > 1),
        ("pipeline_parallel_size", args.pipeline_parallel_size, args.pipeline_parallel_size > 1),
        ("quantization", args.quantization, args.quantization not in (None, "none")),
        ("deterministic", args.deterministic, args.deterministic),
    )
    for name, value, is_refused in asks:
        if is_refused:
            raise RefusedError(
                f"{name}={value!r} needs an architecture that is described here; this one runs through the "
                f"transformers fallback, on one device, as it is.",
                field=name,
                value=value,
            )


def _check_split(decoder: Decoder, tp: int, pp: int) -> None:
    """A split that cannot be made is refused with the reason."""
    if pp > len(decoder.blocks):
        raise ValidationError.of("pipeline_parallel_size", pp, f"at most the number of layers ({len(decoder.blocks)})")
    for block in decoder.blocks if tp > 1 else ():
        heads = block.mixer.heads
        if heads.num % tp:
            raise ValidationError.of("tensor_parallel_size", tp, f"a divisor of the {heads.num} attention heads")
        if heads.num_kv % tp and tp % heads.num_kv:
            raise ValidationError.of(
                "tensor_parallel_size", tp, f"a divisor or multiple of the {heads.num_kv} KV heads"
            )
        ffn = block.ffn
        inter = ffn.expert.inter if hasattr(ffn, "expert") else ffn.inter
        if inter % tp:
            raise ValidationError.of("tensor_parallel_size", tp, f"a divisor of the {inter} feed-forward channels")
    if tp > 1 and decoder.vocab % tp:
        raise ValidationError.of("tensor_parallel_size", tp, f"a divisor of the {decoder.vocab} vocabulary entries")


def _scheduler(args: EngineArgs, decoder: Decoder | Foreign, device: DeviceFacts, chosen: _Choices) -> SchedulerPlan:
    big = device.kind == "cuda" and device.total_bytes >= 70 << 30
    seqs = args.max_num_seqs or (1024 if big else 256)
    tokens = args.max_num_batched_tokens
    length = args.max_model_len if isinstance(args.max_model_len, int) and args.max_model_len > 0 else 0
    if length > decoder.max_positions:
        raise ValidationError.of(
            "max_model_len",
            length,
            f"at most {decoder.max_positions}, the longest this model was made for",
            "Rope scaling through hf_overrides can lift that.",
        )
    length = length or decoder.max_positions
    if tokens is None:
        tokens = 16384 if big else 8192 if device.kind == "cuda" else 4096
        tokens = max(tokens, seqs)
        if args.enable_chunked_prefill is False:
            tokens = max(tokens, length)
        chosen.note("max_num_batched_tokens", tokens, f"the default for {device.kind}")
    elif tokens < seqs:
        seqs = tokens if args.max_num_seqs is None else seqs
        if tokens < seqs:
            raise ValidationError.of("max_num_batched_tokens", tokens, f"at least max_num_seqs ({seqs})")
    if args.enable_chunked_prefill is False and tokens < length:
        raise ValidationError.of(
            "max_num_batched_tokens", tokens, f"at least max_model_len ({length}) with enable_chunked_prefill=False"
        )
    ahead = args.async_scheduling if args.async_scheduling is not None else device.kind == "cuda"
    return SchedulerPlan(
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        max_model_len=length,
        policy=args.scheduling_policy,
        enable_prefix_caching=args.enable_prefix_caching,
        enable_chunked_prefill=args.enable_chunked_prefill is not False,
        long_prefill_token_threshold=args.long_prefill_token_threshold,
        run_ahead=int(ahead),
    )


def _kv_plan(
    args: EngineArgs,
    decoder: Decoder | Foreign,
    dtype: str,
    scheduler: SchedulerPlan,
    spent: Memory,
    device: DeviceFacts,
    chosen: _Choices,
) -> KVPlan:
    """The pool: as many blocks as were asked for, or as memory and need say."""
    if args.kv_cache_dtype not in ("auto", dtype):
        raise RefusedError(
            f"kv_cache_dtype {args.kv_cache_dtype!r} is not supported yet; auto stores keys and values as {dtype}.",
            field="kv_cache_dtype",
        )
    size = args.block_size or _BLOCK_SIZE
    kinds = decoder.kv_kinds()
    one = make_kv_plan(kinds, dtype, num_blocks=2, block_size=size)
    if args.num_gpu_blocks_override:
        return make_kv_plan(kinds, dtype, num_blocks=args.num_gpu_blocks_override + 1, block_size=size)
    share = max(1, args.tensor_parallel_size)
    budget, why = _kv_budget(args, one, scheduler, spent, device)
    if budget < 2 * one.num_slabs * one.block_bytes:
        raise CapacityError(
            f"The model does not fit: weights take {human_bytes(spent.weights)}, a step "
            f"{human_bytes(spent.activations)}, and of {human_bytes(device.free_bytes)} free on this {device.kind} "
            f"{human_bytes(max(budget, 0))} are left for the KV cache. Take a smaller model, quantization, more "
            f"devices, or a smaller max_num_batched_tokens."
        )
    chosen.note("KV cache", human_bytes(budget), why)
    return make_kv_plan(kinds, dtype, budget_bytes=budget * share, block_size=size)


def _kv_budget(
    args: EngineArgs, one: KVPlan, scheduler: SchedulerPlan, spent: Memory, device: DeviceFacts
) -> tuple[int, str]:
    """(bytes, why). On a CPU the cache follows need, for memory that a cache takes is lost to everybody else."""
    if args.kv_cache_memory_bytes:
        return args.kv_cache_memory_bytes, "kv_cache_memory_bytes"
    if device.kind == "cuda":
        top = int(device.total_bytes * args.gpu_memory_utilization)
        others = device.total_bytes - device.free_bytes
        left = top - others - spent.weights - spent.activations - spent.fixed
        return left, f"gpu_memory_utilization {args.gpu_memory_utilization} of {human_bytes(device.total_bytes)}"
    asked = env.number("VLLM_CPU_KVCACHE_SPACE")
    if asked:
        return int(asked * 2**30), "VLLM_CPU_KVCACHE_SPACE"
    longest = bytes_needed(one, scheduler.max_model_len)
    usual = bytes_needed(one, min(scheduler.max_model_len, _USUAL_LEN), scheduler.max_num_seqs)
    need, quarter = max(longest, usual), device.free_bytes // 4
    if need <= quarter:
        return need, f"{scheduler.max_num_seqs} sequences of {_USUAL_LEN} tokens or one of the longest"
    return quarter, f"a quarter of the {human_bytes(device.free_bytes)} that are free"


def _fit_context(args: EngineArgs, scheduler: SchedulerPlan, kv: KVPlan, most: int, chosen: _Choices) -> SchedulerPlan:
    """One sequence of max_model_len must fit into the pool; else it is refused, or cut where the user said auto."""
    if most >= scheduler.max_model_len:
        return scheduler
    if args.max_model_len in (-1, "auto"):
        chosen.note("max_model_len", most, f"what the KV cache of {human_bytes(kv.total_bytes)} holds")
        return replace(scheduler, max_model_len=most)
    raise CapacityError(
        f"max_model_len {scheduler.max_model_len} needs {human_bytes(bytes_needed(kv, scheduler.max_model_len))} of KV "
        f"cache, and there are {human_bytes(kv.total_bytes)}. The longest that fits is {most}: set "
        f"max_model_len={most} (or 'auto'), or give the cache more memory (gpu_memory_utilization, "
        f"kv_cache_memory_bytes, VLLM_CPU_KVCACHE_SPACE on a CPU)."
    )
