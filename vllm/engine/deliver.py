"""Delivery: what the engine says of a request's sequences becomes the RequestOutput that its caller sees.

Detokenises, looks for stop strings, turns numbers into Logprob objects, and cuts what comes after a stop. Does not
know: scheduling, devices, HTTP. Invariant: text, token_ids and logprobs of an output end at the same token; a stop
string is never shown in part unless the text goes on. Called by: entrypoints, once per SequenceUpdate.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vllm.engine.intake import Taken
from vllm.outputs import CompletionOutput, Logprob, PromptLogprobs, RequestOutput, RequestStateStats
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.step import TokenLogprobs
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizer.stop import StopChecker


class Decoder(Protocol):
    """An incremental detokeniser: ids in, text that is certain out."""

    def append(self, ids: Sequence[int]) -> str:
        """The new text of `ids`."""
        ...

    def finish(self) -> str:
        """What was held back because a character was not complete."""
        ...


MakeDecoder = Callable[[Sequence[int], SamplingParams, frozenset[int]], Decoder]
"""From prompt ids, options and the special tokens that are text all the same."""
TokenText = Callable[[int], str]


@dataclass(slots=True)
class _Stream:
    """One sequence as its caller sees it."""

    decoder: Decoder | None
    stops: StopChecker
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative: float | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    undecoded: list[int] = field(default_factory=list)
    sent_chars: int = 0
    sent_tokens: int = 0


class Delivery:
    """One request on its way out. Feed it updates; it returns outputs of the kind the caller asked for."""

    def __init__(
        self,
        taken: Taken,
        make_decoder: MakeDecoder | None,
        token_text: TokenText | None,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        """`shown` are special tokens that are text all the same."""
        self.taken = taken
        self.params = taken.params
        self._token_text = token_text
        wants_text = make_decoder is not None and self.params.detokenize
        self._streams = [
            _Stream(
                make_decoder(taken.prompt_token_ids, self.params, shown) if wants_text and make_decoder else None,
                StopChecker(self.params.stop or (), self.params.include_stop_str_in_output),
                logprobs=None if self.params.logprobs is None else [],
                cumulative=None if self.params.logprobs is None else 0.0,
            )
            for _ in range(self.params.n)
        ]
        # why: a batch job that looks at the end only can decode each text in one go
        self._lazy = self.params.output_kind is RequestOutputKind.FINAL_ONLY and not self.params.stop
        self._prompt_logprobs: PromptLogprobs | None = None
        if self.params.prompt_logprobs is not None:
            self._prompt_logprobs = [None] * len(taken.prompt_token_ids)
        self._num_cached: int | None = None
        self._num_open = self.params.n
        self._is_delta = self.params.output_kind is RequestOutputKind.DELTA
        # why: nearly every update of a stream is one token and nothing else
        asks_more = self.params.logprobs is not None or self.params.prompt_logprobs is not None
        self._is_plain = self._is_delta and not asks_more and not self.params.stop
        self.error: str | None = None
        self.states: bytes | None = None
        """What a head made of the prompt's hidden states."""
        arrived = taken.request.arrival
        self.metrics = RequestStateStats(arrival_time=time.time() - (time.monotonic() - arrived), queued_ts=arrived)

    @property
    def finished(self) -> bool:
        """Every sequence has ended."""
        return not self._num_open

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(s.token_ids) for s in self._streams)

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache."""
        return self._num_cached or 0

    @property
    def finish_reasons(self) -> list[str | None]:
        """Why each sequence ended; None for one that has not."""
        return [s.finish_reason for s in self._streams]

    @property
    def texts(self) -> list[str]:
        """What each sequence says so far."""
        return [s.text for s in self._streams]

    def feed(self, update: SequenceUpdate) -> tuple[RequestOutput | None, bool]:
        """(output to hand out or None, whether a stop string ended the sequence, so that the engine must drop it)."""
        stream = self._streams[update.index]
        if stream.finish_reason is not None:
            return None, False
        tokens = update.token_ids
        if self._is_plain and stream.token_ids and len(tokens) == 1 and update.finish_reason is None:
            return self._plain(stream, update), False
        self.states = update.states or self.states
        if self._num_cached is None:
            self._num_cached = update.num_cached_tokens
        for position, found in update.prompt_logprobs:
            assert self._prompt_logprobs is not None
            self._prompt_logprobs[position] = self._logprobs(found, self.params.prompt_logprobs)
        stopped_here = self._take_tokens(stream, update)
        if stream.finish_reason is None and update.finish_reason is not None:
            self._end(stream, update.finish_reason, update.stop_reason)
            self.error = update.error or self.error
            self._flush(stream)
        self._time(update)
        return self._output(update.index), stopped_here and update.finish_reason is None

    def _plain(self, s: _Stream, update: SequenceUpdate) -> RequestOutput:
        """One more token of a stream, and nothing else: what `_take_tokens`, `_time` and `_output` make of it."""
        text = "" if s.decoder is None else s.decoder.append(update.token_ids)
        s.token_ids += update.token_ids
        s.text += text
        s.sent_chars += len(text)
        s.sent_tokens += 1
        taken, m = self.taken, self.metrics
        m.num_generation_tokens += 1
        m.last_token_ts = update.emitted_at
        return RequestOutput(
            taken.request.request_id,
            taken.prompt,
            taken.prompt_token_ids,
            None,
            [CompletionOutput(update.index, text, update.token_ids)],
            False,
            m,
            num_cached_tokens=self._num_cached,
        )

    def _time(self, update: SequenceUpdate) -> None:
        """Note when the request was first scheduled, and its first and latest token."""
        m = self.metrics
        m.num_generation_tokens += len(update.token_ids)
        m.scheduled_ts = m.scheduled_ts or update.scheduled_at
        if update.token_ids:
            if not m.first_token_ts:
                m.first_token_ts = update.emitted_at
                m.first_token_latency = update.emitted_at - m.queued_ts
            m.last_token_ts = update.emitted_at

    def abort(self) -> RequestOutput:
        """The request was cancelled: every open sequence ends here."""
        ended = [i for i, s in enumerate(self._streams) if s.finish_reason is None]
        for i in ended:
            self._end(self._streams[i], "abort")
            self._flush(self._streams[i])
        if self._is_delta:
            return self._build(ended, delta=True)
        return self._build(range(len(self._streams)))

    def _take_tokens(self, s: _Stream, update: SequenceUpdate) -> bool:
        """Add the update's tokens; True when a stop string cut them short."""
        p = self.params
        hidden = None
        if update.finish_reason == "stop" and update.token_ids and not p.include_stop_str_in_output:
            hidden = len(update.token_ids) - 1  # why: the token that ended the text is counted, not shown
        for i, token in enumerate(update.token_ids):
            s.token_ids.append(token)
            if s.logprobs is not None and update.logprobs:
                found = update.logprobs[i]
                s.logprobs.append(self._logprobs(found, p.logprobs))
                s.cumulative = (s.cumulative or 0.0) + found.values[0]
            if s.decoder is None or i == hidden:
                continue
            if self._lazy:
                s.undecoded.append(token)
                continue
            if self._show(s, s.decoder.append((token,)), may_stop=len(s.token_ids) > p.min_tokens):
                return True
        return False

    def _show(self, s: _Stream, text: str, may_stop: bool, is_last: bool = False) -> bool:
        """Add what may be shown of `text`; True when a stop string ended the sequence. Before min_tokens none does."""
        shown, stop = s.stops.feed(text, is_last, may_stop)
        s.text += shown
        if stop is not None:
            self._end(s, "stop", stop)
        return stop is not None

    def _end(self, s: _Stream, reason: str, stop_reason: int | str | None = None) -> None:
        """A sequence ends; one whose last text holds a stop string ends twice."""
        self._num_open -= s.finish_reason is None
        s.finish_reason, s.stop_reason = reason, stop_reason

    def _flush(self, s: _Stream) -> None:
        """The last text: what waited for the end, and a stop string that only now became whole."""
        if s.decoder is None:
            return
        text = s.decoder.append(s.undecoded) + s.decoder.finish()
        s.undecoded.clear()
        self._show(s, text, may_stop=len(s.token_ids) > self.params.min_tokens, is_last=True)

    def _logprobs(self, found: TokenLogprobs, wanted: int | None) -> dict[int, Logprob]:
        """Candidates as Logprob objects: the chosen token first, then the most likely; equal ids once."""
        text = self._token_text
        limit = len(found.ids) if wanted is None or wanted < 0 else wanted + 1
        out: dict[int, Logprob] = {}
        for token, value, rank in zip(found.ids[:limit], found.values, found.ranks, strict=False):
            if token not in out:
                out[token] = Logprob(value, rank, text(token) if text is not None else None)
        return out

    def _output(self, index: int) -> RequestOutput | None:
        kind = self.params.output_kind
        if kind is RequestOutputKind.FINAL_ONLY:
            return self._build(range(len(self._streams))) if self.finished else None
        if kind is RequestOutputKind.CUMULATIVE:
            return self._build([index])
        return self._build([index], delta=True)

    def _build(self, indices: Sequence[int], delta: bool = False) -> RequestOutput:
        taken = self.taken
        return RequestOutput(
            request_id=taken.request.request_id,
            prompt=taken.prompt,
            prompt_token_ids=taken.prompt_token_ids,
            prompt_logprobs=self._prompt_logprobs,
            outputs=[self._completion(i, delta) for i in indices],
            finished=self.finished,
            metrics=self.metrics,
            num_cached_tokens=self.num_cached_tokens,
        )

    def _completion(self, index: int, delta: bool) -> CompletionOutput:
        s = self._streams[index]
        end = len(s.text)
        first, token = (s.sent_chars, s.sent_tokens) if delta else (0, 0)
        s.sent_chars, s.sent_tokens = end, len(s.token_ids)
        return CompletionOutput(
            index=index,
            text=s.text[first:end],
            token_ids=s.token_ids[token:],
            cumulative_logprob=s.cumulative,
            logprobs=None if s.logprobs is None else s.logprobs[token:],
            finish_reason=s.finish_reason,
            stop_reason=s.stop_reason,
        )
