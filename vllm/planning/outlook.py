"""What a machine could do with a model: how many sequences of which length, and the ways to split and store it.

    expected decode step = bytes read (weights that are hit, keys and values) / bandwidth + a little per layer
    expected prefill     = operations of the weights that a token meets / arithmetic

Rates are a roofline at the share of the datasheet that kernels reach, so a promise of the right size, no measurement.
Does not know files. Called by: `vllm plan`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from vllm.config.args import EngineArgs
from vllm.errors import CapacityError
from vllm.kv.groups import bytes_needed
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import num_parameters
from vllm.planning.known import Rates
from vllm.planning.memory import Network
from vllm.planning.pace import active_parameters, num_layers, parts_used, quantized_parameters
from vllm.planning.plan import Plan
from vllm.util.arith import human_bytes, largest

LENGTHS = (1024, 4096, 16384, 32768, 131072)
_HOP_SECONDS = 12e-6
"""One sum over ranks of a decode step's rows; a layer has two."""
_LAYER_SECONDS = {"cpu": 2e-4, "cuda": 8e-6}


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run a model. `refused` says why it cannot be."""

    tp: int
    quantization: str
    plan: Plan | None
    refused: str = ""


def options(
    args: EngineArgs, make: Callable[[EngineArgs], Plan], sizes: tuple[int, ...], methods: tuple[str, ...]
) -> list[Option]:
    """Every split and every way to store weights that the model and the device allow, or why not."""
    found = []
    for tp in sizes:
        for method in methods:
            asked = replace(args, tensor_parallel_size=tp, quantization=None if method == "as stored" else method)
            if asked.max_model_len is None:
                asked = replace(asked, max_model_len="auto")
            try:
                found.append(Option(tp, method, make(asked)))
            except ValueError as error:
                found.append(Option(tp, method, None, _shortly(error)))
    return found


def at_once(plan: Plan, length: int) -> int:
    """Sequences of `length` tokens that the cache holds at the same time; 0 when not one fits."""
    if length > plan.max_tokens_in_cache:
        return 0
    each = bytes_needed(plan.kv, length, 2) - bytes_needed(plan.kv, length, 1)
    most = plan.kv.total_bytes // each + 1
    return largest(1, most, lambda num: bytes_needed(plan.kv, length, num) <= plan.kv.total_bytes)


def decode_rate(plan: Plan, network: Network, rates: Rates, num: int, length: int) -> float:
    """Expected output tokens per second of `num` sequences that each have `length` tokens."""
    weights = plan.memory.weights * share_read(network, num)
    keys = num * bytes_needed(plan.kv, length) / max(1, plan.worker.tp_size) / max(1, plan.worker.pp_size)
    hops = 2 * _HOP_SECONDS if plan.worker.tp_size > 1 else 0.0
    kind = "cpu" if plan.worker.device == "cpu" else "cuda"
    step = (weights + keys) / rates.read + num_layers(network) * (_LAYER_SECONDS[kind] + hops)
    return num / max(step, num * _product_seconds(plan, network, rates) / plan.worker.tp_size)


def prefill_rate(plan: Plan, network: Network, rates: Rates) -> float:
    """Expected prompt tokens per second."""
    return plan.worker.tp_size * plan.worker.pp_size / _product_seconds(plan, network, rates)


def _product_seconds(plan: Plan, network: Network, rates: Rates) -> float:
    """Of one token on one device: in the narrow type for the maps that are stored so, in 16 bits for the rest."""
    small = quantized_parameters(network) if plan.worker.quantization != "none" else 0
    return 2.0 * (small / rates.math(plan.worker.quantization) + (active_parameters(network) - small) / rates.half)


def text(plan: Plan, network: Network, rates: Rates, found: list[Option]) -> str:
    """What fits, and the options side by side."""
    lengths = sorted({n for n in LENGTHS if n <= plan.scheduler.max_model_len} | {plan.scheduler.max_model_len})
    lines = ["what fits at once:"]
    lines += [f"  {length:>9,} tokens each: {at_once(plan, length):,} sequences" for length in lengths]
    return "\n".join([*lines, *side_by_side(network, rates, found, min(4096, plan.scheduler.max_model_len))])


def side_by_side(network: Network, rates: Rates, found: list[Option], length: int) -> list[str]:
    """A table of the options, with sequences of `length` tokens as the example."""
    heads = {"per rank": 10, "KV cache": 10, "sequences": 9, "longest": 9, "one": 8, "all": 9, "prefill": 9}
    lines = [
        f"options, with sequences of {length:,} tokens; tokens/s of one, of all and of prompts are expected with",
        f"{rates.why}:",
        "  ranks  weights     " + "  ".join(f"{name:>{size}}" for name, size in heads.items()),
    ]
    for option in found:
        plan = option.plan
        head = f"  {option.tp:>5}  {option.quantization:10}"
        if plan is None:
            lines.append(f"{head}  {option.refused}")
            continue
        num = min(at_once(plan, length), plan.scheduler.max_num_seqs)
        one = decode_rate(plan, network, rates, 1, length)
        every = decode_rate(plan, network, rates, num, length) if num else 0.0
        lines.append(
            f"{head}  {human_bytes(plan.memory.weights):>10}  {human_bytes(plan.memory.kv):>10}  {num:>9,}  "
            f"{plan.max_tokens_in_cache:>9,}  {one:>8,.0f}  {every:>9,.0f}  {prefill_rate(plan, network, rates):>9,.0f}"
        )
    return lines


def _shortly(error: ValueError) -> str:
    """Why an option cannot be, in a few words."""
    if isinstance(error, CapacityError):
        return "does not fit"
    return str(error).split(". ")[0].split("; ")[0][:90]


def share_read(network: Network, num: int) -> float:
    """Part of the weights that a step of `num` tokens reads: of experts, those that are hit when all are as likely."""
    if not isinstance(network, Decoder):
        return 1.0
    read = sum(spec.numel * (1.0 - (1.0 - share) ** num) for spec, share in parts_used(network))
    return read / num_parameters(network)
