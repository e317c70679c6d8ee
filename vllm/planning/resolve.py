"""From what the user said and what is true to a Plan: every automatic knob decided once, with its reason.

    arithmetic (dtype, quantization, threads) ─ limits (split, step, length) ─ memory (bytes) ─ cache (blocks) ─▶ Plan

Raises ValueError (errors.py) for what cannot be: a model that does not fit (with what would), a size that cannot be
split, a method that the device lacks. Does not know files or torch. Called by: assembly, `vllm plan`.
"""

from dataclasses import replace

from vllm.config.args import EngineArgs
from vllm.errors import CapacityError
from vllm.parts.checkpoint import Weights
from vllm.parts.foreign import Foreign
from vllm.planning.arithmetic import choose_dtype, choose_quantization, choose_threads
from vllm.planning.cache import Room, fit_context, kv_plan, longest_in, rank_block_bytes
from vllm.planning.choices import Choices
from vllm.planning.host import Step, host_bytes, load_bytes
from vllm.planning.limits import check_split, scheduler_plan
from vllm.planning.memory import Network, activation_bytes, count_parameters, gpu_step_bytes, weight_bytes
from vllm.planning.pace import Work, with_pace
from vllm.planning.plan import Memory, Plan
from vllm.planning.remedies import what_fits
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.plan import LoadPlan, Stored, WorkerPlan

_FIXED_BYTES = 1 << 30
"""Of a GPU: context, workspaces of libraries."""


def resolve(
    args: EngineArgs,
    architecture: str,
    decoder: Network,
    path: str,
    checkpoint_dtype: str,
    device: DeviceFacts,
    weights: Weights | None = None,
    stored: Stored | None = None,
    is_watched: bool = False,
) -> Plan:
    """The Plan for one network on devices like `device`. `checkpoint_dtype` is what config.json says of the weights.

    `stored` says how a quantized checkpoint keeps them, under the names of `weights`. `is_watched`: somebody reads the
    tokens as they come, as a server's clients do.
    """

    def made(asked: EngineArgs, there: DeviceFacts) -> Plan:
        return _resolve(asked, architecture, decoder, path, checkpoint_dtype, there, weights, stored, is_watched)

    try:
        return made(args, device)
    except CapacityError as error:
        raise CapacityError(f"{error} {what_fits(args, device, made)}") from None


def _resolve(
    args: EngineArgs,
    architecture: str,
    decoder: Network,
    path: str,
    checkpoint_dtype: str,
    device: DeviceFacts,
    weights: Weights | None,
    stored: Stored | None,
    is_watched: bool,
) -> Plan:
    chosen, tp, pp = Choices(), args.tensor_parallel_size, args.pipeline_parallel_size
    dtype = choose_dtype(args, checkpoint_dtype, device, chosen)
    quantization = choose_quantization(args, stored, device, chosen)
    check_split(args, decoder, device, chosen)
    scheduler = scheduler_plan(args, decoder, device, chosen)
    size = weight_bytes(decoder, dtype, tp, pp, quantization, weights, stored)
    lines = min(scheduler.max_num_seqs, scheduler.max_num_batched_tokens)
    step = graph = kept = 0
    activations = activation_bytes(decoder, dtype, scheduler.max_num_batched_tokens, lines, tp)
    fixed, loading = _FIXED_BYTES, 0
    if device.kind == "cpu":
        largest = Step(scheduler.max_num_batched_tokens, lines, scheduler.max_model_len)
        activations, fixed = host_bytes(args, decoder, dtype, quantization, largest, device)
        loading = load_bytes(decoder, dtype, quantization, size, tp * pp)
    elif device.kind == "cuda":
        step, graph, kept = gpu_step_bytes(decoder, dtype, scheduler.max_num_batched_tokens, scheduler.max_num_seqs, tp)
        graph = 0 if args.enforce_eager or isinstance(decoder, Foreign) or tp * pp > 1 else graph
        # why: a graph is tried out before it is recorded, beside the memory that graphs have
        activations = step + 2 * graph + kept
    spent = Memory(size, 0, activations, fixed, loading)
    kv = kv_plan(args, decoder, scheduler, Room(device, tp, pp, dtype, spent, quantization), chosen)
    most = longest_in(kv)
    scheduler = fit_context(args, scheduler, kv, most, chosen)
    scheduler = with_pace(scheduler, Work(decoder, size, tp), device, is_watched, chosen)
    scheduler = replace(scheduler, fills_sizes=is_watched and graph > 0)
    worker = WorkerPlan(
        device="cpu" if device.kind == "cpu" else "cuda:0",
        dtype=dtype,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_model_len=scheduler.max_model_len,
        deterministic=args.deterministic,
        num_threads=choose_threads(size, tp * pp, device, chosen),
        quantization=quantization,
        weight_block=stored.block if stored else (0, 0),
        logprobs_mode=args.logprobs_mode,
        max_logprobs=args.max_logprobs,
        enforce_eager=args.enforce_eager,
        step_bytes=step,
        graph_bytes=graph,
        tp_size=tp,
        pp_size=pp,
    )
    return Plan(
        architecture=architecture,
        num_parameters=count_parameters(decoder),
        scheduler=scheduler,
        worker=worker,
        kv=kv,
        load=LoadPlan(path, "auto" if args.load_format == "hf" else args.load_format, args.seed, stored),
        memory=replace(spent, kv=kv.num_blocks * rank_block_bytes(kv, len(decoder.kv_kinds()), tp, pp)),
        max_tokens_in_cache=most,
        choices=tuple(chosen.rows),
    )
