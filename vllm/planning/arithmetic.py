"""What the numbers are and who computes them: dtype, quantization, threads.

Does not know shapes. Called by: resolve.
"""

from vllm.config.args import EngineArgs
from vllm.errors import RefusedError
from vllm.planning.choices import Choices
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.plan import Stored
from vllm.util import env
from vllm.util.arith import human_bytes

_WORDS = {"half": "float16", "float": "float32"}
_SMALL_BYTES = 64 << 20
"""Weights below this are read from a core's own cache: a second thread costs more than it brings."""


def choose_dtype(args: EngineArgs, checkpoint: str, device: DeviceFacts, chosen: Choices) -> str:
    """bfloat16, float16 or float32. `checkpoint` is what config.json says the weights are stored as."""
    said = _WORDS.get(args.dtype, args.dtype)
    if said != "auto":
        if device.kind == "cpu" and said == "float16":
            took = "bfloat16" if device.bf16 else "float32"
            chosen.note("dtype", took, "float16 was asked for, which CPUs do not multiply; weights are converted")
            return took
        if said == "bfloat16" and not device.bf16:
            chosen.note("dtype", said, f"asked for, though {device.name} has no bfloat16 instructions: slow")
        return said
    if device.kind == "cpu":
        took = "bfloat16" if device.bf16 else "float32"
        has = "has" if device.bf16 else "has no"
        why = f"this CPU {has} bfloat16 instructions; the checkpoint is {checkpoint}"
        if not device.bf16:
            why += "; dtype='bfloat16' takes half the memory and decodes faster, less exactly"
        chosen.note("dtype", took, why)
        return took
    took = checkpoint if checkpoint in ("float16", "bfloat16") else "bfloat16"
    why = f"the checkpoint is {checkpoint}"
    if took == "bfloat16" and not device.bf16:
        took, why = "float16", f"{why}, and {device.name} has no bfloat16"
    chosen.note("dtype", took, why)
    return took


def choose_quantization(args: EngineArgs, stored: Stored | None, device: DeviceFacts, chosen: Choices) -> str:
    """`none` or the method by which linear maps are kept: the checkpoint's own, or one that is applied at load."""
    said = args.quantization
    if stored is not None:
        if said not in (None, "none", stored.said, stored.method):
            raise RefusedError(
                f"quantization {said!r} cannot be applied: this checkpoint is quantized already "
                f"({stored.said!r}). Leave quantization out.",
                field="quantization",
                value=said,
            )
        took = stored.method
        chosen.note("quantization", took, f"the checkpoint is quantized ({stored.said})")
    elif said in (None, "none"):
        return "none"
    elif said == "fp8" or (said == "int8" and device.kind == "cpu"):
        took = said
    else:
        does = "int8 and fp8 are" if device.kind == "cpu" else "fp8 is"
        raise RefusedError(
            f"quantization {said!r} is not supported on {device.kind} yet; {does}. A quantized checkpoint says so "
            f"itself.",
            field="quantization",
            value=said,
        )
    if took == "int8" and not device.int8:
        chosen.note("quantization", took, "this CPU has no VNNI instructions, so int8 saves memory but is slow")
    if took != "int8" and not device.fp8:
        if device.kind != "cpu":
            raise RefusedError(
                f"quantization {took!r} needs a GPU with 8-bit floating-point products (compute capability 8.9 or "
                f"later); {device.name} has none. Take the unquantized weights.",
                field="quantization",
                value=took,
            )
        chosen.note("quantization", took, "right on a CPU but slow, for it has no fp8 products; int8 is the fast one")
    return took


def choose_threads(weights: int, ranks: int, device: DeviceFacts, chosen: Choices) -> int:
    """CPU threads of one worker. OMP_NUM_THREADS wins; ranks on one machine share its cores."""
    said = env.number("OMP_NUM_THREADS")
    if said:
        return int(said)
    if device.kind != "cpu":
        chosen.note("threads", 1, "the device does the arithmetic")
        return 1
    if weights < _SMALL_BYTES:
        chosen.note("threads", 1, f"the weights are only {human_bytes(weights)}")
        return 1
    share = max(1, device.num_cores // ranks)
    chosen.note("threads", share, f"{device.num_cores} cores by affinity and quota")
    return share
