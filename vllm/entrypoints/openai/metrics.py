"""Counts for Prometheus, under vLLM's names, so that existing dashboards work.

The engine counts from its own start; totals here go on over a restart. Does not know: HTTP, texts. Called by: front
(through on_stats and on_update), routes/metrics.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from vllm.engine.deliver import Delivery
from vllm.engine.stats import EngineStats
from vllm.engine.wire import Ready
from vllm.protocol.events import SequenceUpdate

_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_GAPS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LONG = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_TOKENS = tuple(m * 10**e for e in range(6) for m in (1, 2, 5))
_MOST_STEPS = 64
_STEP = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LABELS = ("model_name", "engine")
_ENDS = ("stop", "length", "abort", "error", "repetition")
_WAITING = ("capacity", "deferred")
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
"""Values of labels that dashboards ask for; those that cannot happen here stay 0."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the start, and the state of now."""

    num_prompt_tokens: int
    num_tokens: int
    num_running: int
    num_waiting: int
    kv_usage: float
    num_prefix_queried: int
    num_prefix_hit: int


class Tally(Collector):
    """A histogram that costs little to count in: the library's takes four locks for each observation."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str]) -> None:
        self._about, self._bounds, self._labels = (name, text), bounds, labels
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the registry asks for."""
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        family = HistogramMetricFamily(*self._about, labels=_LABELS)
        family.add_metric(self._labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)
        yield family


class Metrics:
    """The counts of one server."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._values = (model_name, "0")
        self._last = EngineStats(0, 0, 0.0, 0, 0, 0, 0, 0, 0)
        self._num_prompt_tokens = self._num_tokens = self._num_told = 0
        self._running = self._gauge("num_requests_running", "Sequences that run")
        self._waiting = self._gauge("num_requests_waiting", "Sequences that wait")
        by_reason = self._apart("num_requests_waiting_by_reason", "Sequences that wait, by reason", "reason")
        self._waiting_by_reason = {reason: by_reason.labels(*self._values, reason) for reason in _WAITING}
        self._kv = self._gauge("kv_cache_usage_perc", "Part of the KV cache in use, 0 to 1")
        self._queried = self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache")
        self._hit = self._counter("prefix_cache_hits", "Tokens found in the prefix cache")
        self._preempted = self._counter("num_preemptions", "Sequences that lost their place")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens taken in")
        self._generated = self._counter("generation_tokens", "Tokens generated")
        labels = (*_LABELS, "finished_reason")
        self._success = Counter(
            "vllm:request_success", "Requests that ended, by reason", labels, registry=self.registry
        )
        for reason in _ENDS:  # why: a rate over a series that begins with its first event misses that event
            self._success.labels(*self._values, reason)
        labels = (*_LABELS, "source")
        by_source = Counter("vllm:prompt_tokens_by_source", "Prompt tokens, by source", labels, registry=self.registry)
        self._by_source = {source: by_source.labels(*self._values, source) for source in _SOURCES}
        self._asleep = self._apart("engine_sleep_state", "1 for the state that the engine is in", "sleep_state")
        self.on_sleep("awake")
        self._ttft = self._histogram("time_to_first_token_seconds", "Arrival to first token", _SHORT)
        self._gap = Tally("vllm:inter_token_latency_seconds", "Time between outputs of a request", _GAPS, self._values)
        self.registry.register(self._gap)
        self._e2e = self._histogram("e2e_request_latency_seconds", "Arrival to last token", _LONG)
        self._queue = self._histogram("request_queue_time_seconds", "Arrival to first step", _LONG)
        self._prefill = self._histogram("request_prefill_time_seconds", "First step to first token", _LONG)
        self._decode = self._histogram("request_decode_time_seconds", "First to last token", _LONG)
        self._num_prompt = self._histogram("request_prompt_tokens", "Prompt tokens of a request", _TOKENS)
        self._num_generated = self._histogram("request_generation_tokens", "Tokens of a request", _TOKENS)
        self._n = self._histogram("request_params_n", "n of a request", (1, 2, 5, 10, 20))
        self._cached = self._counter("prompt_tokens_cached", "Prompt tokens that came from the prefix cache")
        self._refused = self._counter("admission_rejections", "Requests that were turned away because too many wait")
        self._corrupted = self._counter("corrupted_requests", "Requests whose logits were not numbers")
        self._per_token = self._histogram("request_time_per_output_token_seconds", "Mean time per token", _GAPS)
        self._inference = self._histogram("request_inference_time_seconds", "First step to last token", _LONG)
        self._most = self._histogram("request_max_num_generation_tokens", "Longest text of a request", _TOKENS)
        self._asked = self._histogram("request_params_max_tokens", "max_tokens of a request", _TOKENS)
        self._computed = self._histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens that were not in the prefix cache", _TOKENS
        )
        self._iteration = self._histogram("iteration_tokens_total", "Tokens of one step", _STEP)
        self._http = Counter("http_requests", "HTTP requests", ("handler", "method", "status"), registry=self.registry)
        self._http_time = Histogram(
            "http_request_duration_seconds",
            "Time to an HTTP answer, or to the end of a stream",
            ("handler", "method"),
            registry=self.registry,
            buckets=(0.1, 0.5, 1),
        )
        ProcessCollector(registry=self.registry)

    def on_sleep(self, state: str) -> None:
        """The engine is awake, or sleeps at vLLM's level 1 (weights_offloaded) or 2 (discard_all)."""
        for one in ("awake", "weights_offloaded", "discard_all"):
            self._asleep.labels(*self._values, one).set(one == state)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        self._generated.inc(self._num_tokens - self._num_told)  # why: here once, and not for each token
        self._num_told = self._num_tokens
        return generate_latest(self.registry)

    def on_ready(self, ready: Ready) -> None:
        """What the cache is."""
        self.on_cache(ready.block_size, ready.num_blocks)

    def on_cache(self, block_size: int, num_blocks: int) -> None:
        """The same, of an engine in this process."""
        names = ("block_size", "num_gpu_blocks", "engine")
        gauge = Gauge("vllm:cache_config_info", "The KV cache", names, registry=self.registry)
        gauge.labels(str(block_size), str(num_blocks), "0").set(1)

    def on_stats(self, stats: EngineStats) -> None:
        """The engine's own counts, once a step."""
        last = self._last if stats.num_steps >= self._last.num_steps else EngineStats(0, 0, 0.0, 0, 0, 0, 0, 0, 0)
        num_steps, num_tokens = stats.num_steps - last.num_steps, stats.num_query_tokens - last.num_query_tokens
        for _ in range(min(num_steps, _MOST_STEPS)):  # why: news may tell of several steps, each with its part
            self._iteration.observe(num_tokens / num_steps)
        self._running.set(stats.num_running)
        self._waiting.set(stats.num_waiting)
        self._waiting_by_reason["capacity"].set(stats.num_waiting)
        self._kv.set(stats.kv_usage)
        for counter, new, old in (
            (self._queried, stats.num_prefix_queried, last.num_prefix_queried),
            (self._hit, stats.num_prefix_hit, last.num_prefix_hit),
            (self._preempted, stats.num_preempted, last.num_preempted),
        ):
            if new > old:
                counter.inc(new - old)
        self._last = stats

    def on_update(self, delivery: Delivery, update: SequenceUpdate, gap_s: float) -> None:
        """News of one request, after its Delivery has taken them in."""
        m = delivery.metrics
        if update.token_ids:
            self._num_tokens += len(update.token_ids)
            if m.num_generation_tokens == len(update.token_ids):
                self._prompt.inc(len(delivery.taken.prompt_token_ids))
                self._num_prompt_tokens += len(delivery.taken.prompt_token_ids)
                self._cached.inc(update.num_cached_tokens)
                self._by_source["local_cache_hit"].inc(update.num_cached_tokens)
                self._by_source["local_compute"].inc(len(delivery.taken.prompt_token_ids) - update.num_cached_tokens)
                self._ttft.observe(max(0.0, time.monotonic() - m.queued_ts))
            elif gap_s > 0:
                self._gap.observe(gap_s)
        if delivery.finished:
            self._on_end(delivery, update.finish_reason or "stop")

    def on_abort(self, delivery: Delivery) -> None:
        """A request was given up by its caller."""
        self._on_end(delivery, "abort")

    def _on_end(self, delivery: Delivery, reason: str) -> None:
        """A request has ended."""
        m = delivery.metrics
        self._success.labels(*self._values, reason).inc()
        self._num_prompt.observe(len(delivery.taken.prompt_token_ids))
        self._num_generated.observe(m.num_generation_tokens)
        self._n.observe(delivery.params.n)
        self._e2e.observe(max(0.0, time.monotonic() - m.queued_ts))
        self._most.observe(delivery.longest)
        self._computed.observe(len(delivery.taken.prompt_token_ids) - delivery.num_cached_tokens)
        if delivery.params.max_tokens is not None:
            self._asked.observe(delivery.params.max_tokens)
        if m.first_token_ts:
            if delivery.longest > 1:
                self._per_token.observe(max(0.0, m.last_token_ts - m.first_token_ts) / (delivery.longest - 1))
            self._inference.observe(max(0.0, m.last_token_ts - m.scheduled_ts))
            self._queue.observe(max(0.0, m.scheduled_ts - m.queued_ts))
            self._prefill.observe(max(0.0, m.first_token_ts - m.scheduled_ts))
            self._decode.observe(max(0.0, m.last_token_ts - m.first_token_ts))

    def on_refused(self) -> None:
        """A request was turned away because too many wait."""
        self._refused.inc()

    def on_http(self, handler: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered."""
        self._http.labels(handler, method, f"{status // 100}xx").inc()
        self._http_time.labels(handler, method).observe(seconds)

    def totals(self) -> Totals:
        """What the log tells of."""
        s = self._last
        return Totals(
            self._num_prompt_tokens,
            self._num_tokens,
            s.num_running,
            s.num_waiting,
            s.kv_usage,
            s.num_prefix_queried,
            s.num_prefix_hit,
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._values)

    def _apart(self, name: str, text: str, label: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, (*_LABELS, label), registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._values)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        made = Histogram(f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=buckets)
        return made.labels(*self._values)
