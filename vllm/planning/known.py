"""GPUs by name, for planning without one: memory, bandwidth and arithmetic as their makers' datasheets give them.

Dense rates. What a kernel reaches is less: `REACH` is what we count on, `SEEN` what programs were measured to reach.
Does not know networks. Called by: outlook, floor, `vllm plan --gpu`.
"""

from dataclasses import dataclass

from vllm.errors import ValidationError, nearest
from vllm.planning.pace import cpu_speed
from vllm.protocol.facts import DeviceFacts

READ_REACH, MATH_REACH = 0.80, 0.70
READ_SEEN, MATH_SEEN = 4.375 / 4.8, 790 / 990
"""Shares of the datasheet's bandwidth and arithmetic: counted on in expected rates, and measured on an H200."""
HELD_BACK = 0.985
"""What a driver leaves of a card's memory to programs."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. GiB, TB/s, TFLOP/s; `fp8` is 0 where there is no such arithmetic, `bf16` False before Ampere."""

    gib: float
    read: float
    half: float
    fp8: float = 0.0
    bf16: bool = True


CARDS = {
    "B200": Card(179, 8.0, 2250, 4500),
    "GH200": Card(95, 4.0, 990, 1979),
    "H200": Card(140, 4.8, 990, 1979),
    "H100": Card(79.6, 3.35, 990, 1979),
    "H100-PCIE": Card(79.6, 2.0, 756, 1513),
    "H20": Card(95, 4.0, 148, 296),
    "H800": Card(79.6, 3.35, 990, 1979),
    "A100": Card(79.3, 2.04, 312),
    "A100-40G": Card(39.4, 1.56, 312),
    "A800": Card(79.3, 2.04, 312),
    "A40": Card(44.5, 0.70, 150),
    "A10": Card(22.5, 0.60, 125),
    "L40S": Card(44.4, 0.86, 362, 733),
    "L4": Card(22.5, 0.30, 121, 242),
    "L20": Card(44.5, 0.86, 119, 239),
    "RTX-PRO-6000": Card(95, 1.79, 500, 1000),
    "RTX-6000-ADA": Card(47.5, 0.96, 364, 728),
    "RTX-A6000": Card(47.5, 0.77, 155),
    "RTX-5090": Card(31.4, 1.79, 210, 419),
    "RTX-4090": Card(23.6, 1.01, 165, 330),
    "RTX-3090": Card(23.7, 0.94, 71),
    "V100": Card(31.7, 0.90, 125, bf16=False),
    "T4": Card(14.6, 0.32, 65, bf16=False),
}


def card(name: str) -> tuple[str, Card]:
    """The card that `name` means (any case, NVIDIA and spaces allowed). ValidationError names the nearest."""
    plain = name.upper().replace("NVIDIA", "").replace("GEFORCE", "").strip().replace(" ", "-").replace("_", "-")
    short = plain.replace("-", "")
    for known in CARDS:
        if short == known.replace("-", "") or short == known.replace("-", "").replace("RTX", ""):
            return known, CARDS[known]
    near = nearest(plain, list(CARDS))
    raise ValidationError(f"gpu {name!r} is not known.{near} Known: {', '.join(CARDS)}.", field="gpu", value=name)


def known_card(device: DeviceFacts) -> tuple[str, Card] | None:
    """The card that a GPU's own name means; None for one that is not in the table."""
    plain = device.name.upper().replace(" ", "").replace("-", "")
    names = (name for name in sorted(CARDS, key=len, reverse=True) if name.replace("-", "") in plain)
    return next(((name, CARDS[name]) for name in names if device.kind == "cuda"), None)


def facts_of(name: str, count: int) -> DeviceFacts:
    """A machine with `count` empty cards of that name."""
    known, one = card(name)
    size = int(one.gib * 2**30)
    return DeviceFacts(
        kind="cuda",
        name=f"NVIDIA {known}",
        total_bytes=size,
        free_bytes=int(size * HELD_BACK),
        bf16=one.bf16,
        fp8=one.fp8 > 0,
        count=count,
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """What is counted on, per device: bytes and operations a second, and where that comes from."""

    read: float
    half: float
    fp8: float
    int8: float
    why: str

    def math(self, quantization: str) -> float:
        """Operations a second with weights stored so."""
        return {"fp8": self.fp8, "int8": self.int8}.get(quantization) or self.half


def rates(device: DeviceFacts) -> Rates:
    """Of a known card by its datasheet, of any other device a guess that says so."""
    if device.kind == "cpu":
        read, math = cpu_speed(device)
        why = f"{device.num_cores} cores by their instruction set, a guess"
        return Rates(read, math, 0.0, 2 * math if device.int8 else 0.0, why)
    found = known_card(device)
    if found is not None:
        (name, one), math = found, 1e12 * MATH_REACH
        why = f"{READ_REACH:.0%} of the {name}'s bandwidth and {MATH_REACH:.0%} of its arithmetic"
        return Rates(one.read * 1e12 * READ_REACH, one.half * math, one.fp8 * math, 0.0, why)
    why = f"1 TB/s, since {device.name} is not known here"
    return Rates(1e12 * READ_REACH, 150e12 * MATH_REACH, 0.0, 0.0, why)
