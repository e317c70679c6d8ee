"""What vLLM 0.25.1 was measured at on one H200, by case and model: docs/performance.md says how.

Milliseconds of a decode step (b1 to b256), else tokens a second. Called by: engine.
"""

GPU = "H200"
NAMES_BY_SIZE = {
    ("Qwen3ForCausalLM", 596_049_920): "Qwen3-0.6B",
    ("LlamaForCausalLM", 8_030_261_248): "Llama-3.1-8B",
    ("Qwen3MoeForCausalLM", 30_532_122_624): "Qwen3-30B-A3B",
}
"""(architecture, parameters) -> the name of the yardstick."""
VLLM: dict[str, dict[str, float]] = {
    "Qwen3-0.6B": {"b1": 1.602, "small": 24_071},
    "Llama-3.1-8B": {
        "b1": 4.914,
        "b32": 6.404,
        "b128": 11.096,
        "b256": 18.756,
        "prefill": 42_568,
        "mixed": 35_697,
        "sharegpt": 11_807,
    },
    "Llama-3.1-8B fp8": {"b1": 3.483, "b32": 5.379, "b128": 9.194, "prefill": 67_783},
    "Qwen3-30B-A3B": {"b1": 4.179, "b32": 16.696, "b128": 21.415, "prefill": 71_386},
}

STARTS = {"Llama-3.1-8B": {"cold": 57.4, "warm": 37.1}}
"""Seconds from a process's start to an engine that is ready, the first time and later."""


def yardstick(architecture: str, num_parameters: int, quantization: str) -> str | None:
    """The yardstick's name for a network, None where it has none."""
    name = NAMES_BY_SIZE.get((architecture, num_parameters))
    return name if name is None or quantization == "none" else f"{name} {quantization}"


def recorded(name: str | None, device: str, case: str) -> float | None:
    """The figure, None where there is none for this model, device and case."""
    return VLLM.get(name or "", {}).get(case) if GPU in device.upper() else None


def recorded_start(name: str, device: str) -> dict[str, float]:
    """Seconds by kind of start; empty where they were not measured."""
    return STARTS.get(name, {}) if GPU in device.upper() else {}
