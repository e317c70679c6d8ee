"""`LLM.get_metrics()`: the counts that a server shows at /metrics, as objects.

Does not know: who counts. Called by: offline, users (through vllm.v1.metrics.reader).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.engine.deliver import Delivery
    from vllm.engine.stats import EngineStats
    from vllm.protocol.events import SequenceUpdate


@dataclass
class Metric:
    """A series: its name and labels."""

    name: str
    labels: dict[str, str]


@dataclass
class Counter(Metric):
    """Only grows."""

    value: int


@dataclass
class Gauge(Metric):
    """Is what it is now."""

    value: float


@dataclass
class Vector(Metric):
    """A counter per position."""

    values: list[int]


@dataclass
class Histogram(Metric):
    """`buckets`: upper bound -> observations up to it."""

    count: int
    sum: float
    buckets: dict[str, int] = field(default_factory=dict)


def read(families: Iterable[Any]) -> list[Metric]:
    """Every series under a name of vLLM's, in the order of the registry."""
    found: list[Metric] = []
    for family in families:
        if not family.name.startswith("vllm:"):
            continue
        if family.type == "histogram":
            found += _histograms(family)
        else:
            for sample in family.samples:
                if family.type == "counter" and sample.name.endswith("_total"):
                    found.append(Counter(family.name, dict(sample.labels), int(sample.value)))
                elif family.type == "gauge":
                    found.append(Gauge(family.name, dict(sample.labels), float(sample.value)))
    return found


def _histograms(family: Any) -> list[Metric]:
    by_labels: dict[tuple[tuple[str, str], ...], Histogram] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        one = by_labels.setdefault(key, Histogram(family.name, labels, 0, 0.0))
        if sample.name.endswith("_bucket"):
            one.buckets[sample.labels["le"]] = int(sample.value)
        elif sample.name.endswith("_count"):
            one.count = int(sample.value)
        elif sample.name.endswith("_sum"):
            one.sum = float(sample.value)
    return list(by_labels.values())


class Counts:
    """Counts of an engine of this process."""

    def __init__(self, num_blocks: int, block_size: int, model_name: str) -> None:
        from vllm.entrypoints.openai.metrics import Metrics

        self._metrics = Metrics(model_name)
        self._metrics.on_cache(block_size, num_blocks)
        self._seen: dict[str, float] = {}

    def on_update(self, delivery: Delivery, update: SequenceUpdate) -> None:
        """News of one request."""
        now = time.monotonic()
        self._metrics.on_update(delivery, update, now - self._seen.get(update.request_id, now))
        self._seen[update.request_id] = now
        if delivery.finished:
            del self._seen[update.request_id]

    def read(self, stats: EngineStats) -> list[Metric]:
        """All of them now."""
        self._metrics.on_stats(stats)
        self._metrics.text()
        return read(self._metrics.registry.collect())
