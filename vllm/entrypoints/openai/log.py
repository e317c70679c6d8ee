"""The lines that a person reads: how fast the server is, which requests come and how they end.

Does not know: routes. Invariant: nothing of a prompt is told unless it was asked for. Called by: api_server, generate.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

from vllm.config.args import EngineArgs
from vllm.config.server import ServerArgs
from vllm.engine.deliver import Delivery
from vllm.entrypoints.openai.metrics import Metrics
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.util.log import get_logger

_log = get_logger("vllm.server")
TELL_S = 10.0
_PLAIN = SamplingParams(output_kind=RequestOutputKind.DELTA)
SHOWN = 200
"""Characters of a prompt or an answer in a line, unless --max-log-len says otherwise."""


async def tell_stats(metrics: Metrics) -> None:
    """A line every ten seconds in which something happened, and one when it became quiet. Never returns."""
    before, at, was_busy = metrics.totals(), time.monotonic(), False
    while True:
        await asyncio.sleep(TELL_S)
        now, seconds = metrics.totals(), time.monotonic() - at
        num_prompt, num_new = now.num_prompt_tokens - before.num_prompt_tokens, now.num_tokens - before.num_tokens
        is_busy = bool(num_prompt or num_new or now.num_running or now.num_waiting)
        if is_busy or was_busy:
            hits = now.num_prefix_hit / now.num_prefix_queried if now.num_prefix_queried else 0.0
            _log.info(
                "Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, Running: %d reqs, "
                "Waiting: %d reqs, KV cache usage: %.1f%%, Prefix cache hit rate: %.1f%%",
                num_prompt / seconds,
                num_new / seconds,
                now.num_running,
                now.num_waiting,
                100 * now.kv_usage,
                100 * hits,
            )
        before, at, was_busy = now, time.monotonic(), is_busy


def _asked(params: SamplingParams) -> str:
    """What is not as it is by default: forty values would hide the two that matter."""
    plain, given = asdict(_PLAIN), asdict(params)
    shown = [f"{name}={str(value)[:SHOWN]}" for name, value in given.items() if value != plain[name]]
    return f"SamplingParams({', '.join(shown)})"


class RequestLog:
    """With --enable-log-requests: a line when a request comes, one when it ends."""

    def __init__(self, engine_args: EngineArgs, args: ServerArgs) -> None:
        self._is_on = engine_args.enable_log_requests
        self._tells_outputs = args.enable_log_outputs
        self._most = SHOWN if engine_args.max_log_len is None else engine_args.max_log_len

    def came(self, name: str, deliveries: Sequence[Delivery]) -> None:
        """The request `name` was queued."""
        if self._is_on and deliveries:
            one = deliveries[0]
            num_tokens = sum(len(d.taken.prompt_token_ids) for d in deliveries)
            prompts = "" if len(deliveries) == 1 else f" in {len(deliveries)} prompts"
            _log.info(
                "Request %s: %d tokens%s, %s, %s", name, num_tokens, prompts, self._prompt(one), _asked(one.params)
            )

    def ended(self, name: str, deliveries: Sequence[Delivery]) -> None:
        """The request `name` is over."""
        if not self._is_on or not deliveries:
            return
        took = time.monotonic() - deliveries[0].metrics.queued_ts
        first = deliveries[0].metrics.first_token_latency
        ends = [reason or "left" for d in deliveries for reason in d.finish_reasons]
        num_tokens = sum(d.metrics.num_generation_tokens for d in deliveries)
        _log.info(
            "Request %s ended: %s, %d tokens in %.2f s, the first after %.3f s%s",
            name,
            ", ".join(f"{reason}{f' x{ends.count(reason)}' if len(ends) > 1 else ''}" for reason in sorted(set(ends))),
            num_tokens,
            took,
            first,
            "".join(f", {self._cut(text)!r}" for d in deliveries for text in d.texts) if self._tells_outputs else "",
        )

    def _prompt(self, delivery: Delivery) -> str:
        return repr(self._cut(delivery.taken.prompt)) if delivery.taken.prompt is not None else "token ids"

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._most else text[: self._most] + "..."
