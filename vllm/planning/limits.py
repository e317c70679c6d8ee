"""Limits of a step and of a sequence, and whether a network can be split as asked.

Does not know bytes. Called by: resolve.
"""

from vllm.config.args import EngineArgs
from vllm.errors import RefusedError, ValidationError
from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MoE
from vllm.parts.foreign import Foreign
from vllm.planning.choices import Choices
from vllm.planning.memory import Network
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.kv import SlidingKV
from vllm.protocol.plan import SchedulerPlan

_BIG_BYTES = 70 << 30


def check_split(args: EngineArgs, decoder: Network, device: DeviceFacts, chosen: Choices) -> None:
    """A split that cannot be made is refused with the reason and the sizes that would do."""
    tp, pp = args.tensor_parallel_size, args.pipeline_parallel_size
    if args.data_parallel_size > 1:
        raise RefusedError(
            "data_parallel_size above 1 is not built; start several servers behind a load balancer.",
            field="data_parallel_size",
            value=args.data_parallel_size,
        )
    if isinstance(decoder, Foreign):
        _check_foreign(args, chosen)
        return
    if pp > len(decoder.blocks):
        raise ValidationError.of("pipeline_parallel_size", pp, f"at most the number of layers ({len(decoder.blocks)})")
    reasons = {size: _why_not(decoder, size) for size in {tp, *range(1, 17)}}
    if reasons[tp]:
        good = ", ".join(str(size) for size, why in sorted(reasons.items()) if not why and size <= 16)
        raise ValidationError.of("tensor_parallel_size", tp, reasons[tp], f"These sizes would do: {good}.")
    if device.kind == "cuda" and tp * pp > device.count:
        raise ValidationError.of(
            "tensor_parallel_size",
            tp,
            f"such that tensor x pipeline ranks ({tp * pp}) <= visible devices ({device.count})",
        )


def _check_foreign(args: EngineArgs, chosen: Choices) -> None:
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


def _why_not(decoder: Decoder, tp: int) -> str:
    """What `tp` would have to be, "" when it will do."""
    for block in dict.fromkeys(decoder.blocks):
        heads, ffn = block.mixer.heads, block.ffn
        if heads.num % tp:
            return f"a divisor of the {heads.num} attention heads"
        if heads.num_kv % tp and tp % heads.num_kv:
            return f"a divisor or multiple of the {heads.num_kv} KV heads"
        for part in (ffn.expert, ffn.shared) if isinstance(ffn, MoE) else (ffn,):
            if part is not None and part.inter % tp:
                return f"a divisor of the {part.inter} feed-forward channels"
    return ""


def longest_sequence(args: EngineArgs, decoder: Network) -> int:
    """Most tokens of a sequence: what was asked, or what the model was made for. Raises ValidationError."""
    limit = decoder.max_positions
    if isinstance(decoder, Decoder) and decoder.embed.positions:
        limit = min(limit, decoder.embed.positions - decoder.embed.position_offset)
    if args.disable_sliding_window:
        limit = min([limit, *(kind.window for kind in decoder.kv_kinds() if isinstance(kind, SlidingKV))])
    asked = args.max_model_len
    if not isinstance(asked, int) or asked < 0:
        return limit
    if asked > limit:
        raise ValidationError.of(
            "max_model_len",
            asked,
            f"at most {limit}, the longest this model was made for",
            "Rope scaling through hf_overrides can lift that.",
        )
    return asked


def scheduler_plan(args: EngineArgs, decoder: Network, device: DeviceFacts, chosen: Choices) -> SchedulerPlan:
    """Sequences and tokens of a step. A step must have room for one token of every running sequence."""
    length, big = longest_sequence(args, decoder), device.kind == "cuda" and device.total_bytes >= _BIG_BYTES
    seqs, tokens = args.max_num_seqs, args.max_num_batched_tokens
    if seqs is None:
        seqs = 1024 if big else 256
        seqs = seqs if tokens is None else min(seqs, tokens)
        chosen.note("max_num_seqs", seqs, f"the default for {device.name}")
    if tokens is None:
        tokens = max(seqs, 16384 if big else 8192 if device.kind == "cuda" else 4096)
        if args.enable_chunked_prefill is False:
            tokens = max(tokens, length)
        chosen.note("max_num_batched_tokens", tokens, f"the default for {device.name}")
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
