"""Facade: keeps `from vllm.v1.metrics.reader import Counter, Gauge, Histogram, Metric, Vector` alive."""

from vllm.util.facade import forward

_NAMES = (
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "Vector",
)
__getattr__ = forward(__name__, dict.fromkeys(_NAMES, "vllm.entrypoints.readings"))
