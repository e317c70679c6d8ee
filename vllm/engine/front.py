"""A server's front: prompts in, texts out, for many callers on one event loop, with the engine in another process.

    open(deliveries) ─▶ client ─▶ (engine) ─▶ updates ─▶ Delivery: text, stop strings ─▶ Flow: one mailbox per caller

Does not know: HTTP, JSON. Invariants: one wake-up of a caller per step, however many tokens and sequences it brought,
and one of the loop for all driven flows together; what a slow caller has not fetched is at most its own output; leaving
a Flow aborts what is left of it; an error in one request ends that request alone. Called by: entrypoints.openai.
"""

import asyncio
import time
import types
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from vllm.config.args import EngineArgs
from vllm.engine.client import EngineClient
from vllm.engine.deliver import Delivery, MakeDecoder, TokenText
from vllm.engine.folder import (
    compiler_words,
    decoder_maker,
    default_sampling,
    find_folder,
    generation_config,
    load_tokenizer,
    token_text,
)
from vllm.engine.intake import Intake, Limits
from vllm.engine.stats import EngineStats
from vllm.engine.wire import Ready
from vllm.errors import CapacityError, EngineGenerateError, ValidationError
from vllm.inputs import TypedPrompt
from vllm.outputs import RequestOutput
from vllm.protocol.events import SequenceUpdate
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.util.log import get_logger

_log = get_logger(__name__)
_AT_ONCE = 20_000
"""Characters that are tokenised on the event loop; longer prompts go to a thread."""
_AT_A_TURN = 64
"""Streams that get their news in one turn of the event loop."""


class Watch(Protocol):
    """Who counts (metrics)."""

    def on_stats(self, stats: EngineStats) -> None: ...

    def on_update(self, delivery: Delivery, update: SequenceUpdate, gap_s: float) -> None: ...

    def on_abort(self, delivery: Delivery) -> None: ...


@dataclass(slots=True)
class Model:
    """What is served."""

    folder: Path
    intake: Intake
    ready: Ready
    tokenizer: Any
    make_decoder: MakeDecoder | None
    token_text: TokenText | None
    default_sampling: dict[str, Any]
    compiler_words: dict[str, Any]
    """For structured output."""

    @property
    def token_bytes(self) -> Callable[[int], bytes] | None:
        """The bytes of single tokens inside a text; None without a tokenizer."""
        return None if self.tokenizer is None else self.tokenizer.token_bytes


def _nothing() -> None:
    pass


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Wait until a Round comes by."""
    yield


class Round:
    """Runs whoever has news: one wake-up of the event loop for all streams of a step, not a task's for each token."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()

    def add(self, run: Callable[[], None]) -> None:
        """`run` is called soon."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._go)
        self._due.append(run)

    def _go(self) -> None:
        due = self._due
        for _ in range(min(len(due), _AT_A_TURN)):
            due.popleft()()
        if due:  # why: what was written leaves when the loop turns, and should not wait for a thousand others
            asyncio.get_running_loop().call_soon(self._go)


class Flow:
    """The outputs of some requests of one caller, as they come: `async for batch in flow`, batches of (place, output).

    Raises EngineGenerateError when one of them failed. Close it in any case.
    """

    def __init__(self, deliveries: Sequence[Delivery], abort: Callable[[Delivery], None], round_: Round) -> None:
        self.deliveries = deliveries
        self._round, self._run = round_, _nothing
        self._is_due = self._is_driven = False
        self._abort = abort
        self._open = dict(enumerate(deliveries))
        self._inbox: list[tuple[int, RequestOutput]] = []
        self._newest: dict[tuple[int, int], RequestOutput] = {}
        """(place, sibling) -> what the inbox holds of it."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.on_close: Callable[[], None] = _nothing

    def put(self, place: int, output: RequestOutput | None, is_done: bool) -> None:
        """Put an output into the mailbox."""
        if output is not None and not (self._inbox and self._join(place, output)):
            self._inbox.append((place, output))
        if is_done:
            self._open.pop(place, None)
        self._wake()

    def _join(self, place: int, output: RequestOutput) -> bool:
        """Add a delta to one of the same sequence that was not fetched yet: who reads slowly gets few large ones."""
        if self.deliveries[place].params.output_kind is not RequestOutputKind.DELTA or len(output.outputs) != 1:
            return False
        if not self._newest:  # why: most are fetched before a second one comes, so this is made then
            self._newest = {(at, one.index): held for at, held in self._inbox for one in held.outputs}
        held = self._newest.setdefault((place, output.outputs[0].index), output)
        if held is output:
            return False
        held.add(output, aggregate=True)
        return True

    def fail(self, error: Exception) -> None:
        """The caller hears of `error` once it has read what came before."""
        self._error = self._error or error
        self._wake()

    def drive(self, run: Callable[[], None]) -> None:
        """From now on the iteration is no task's: `run`, called when there is news, takes it one step further."""
        self._is_driven, self._run = True, run

    def _on_round(self) -> None:
        self._is_due = False
        self._run()

    def _wake(self) -> None:
        if self._is_driven:
            if not self._is_due:
                self._is_due = True
                self._round.add(self._on_round)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, RequestOutput]]]:
        while True:
            batch, self._inbox = self._inbox, []
            if self._newest:
                self._newest = {}
            if batch:
                yield batch
            elif self._error is not None:
                raise self._error
            elif not self._open:
                return
            elif self._is_driven:
                await _turn()
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def cancel(self) -> None:
        """Somebody else than the caller ends it: what has not ended does so here, with finish_reason "abort"."""
        for place, delivery in list(self._open.items()):
            self._abort(delivery)
            self.put(place, delivery.abort(), is_done=True)

    def close(self) -> None:
        """Abort what has not ended."""
        for delivery in self._open.values():
            self._abort(delivery)
        self._open.clear()
        self.on_close, told = _nothing, self.on_close
        told()


class Front:
    """One model for many callers. `start` it before use; `stop` ends the engine."""

    def __init__(self, args: EngineArgs, watch: Watch | None = None) -> None:
        self._args = args
        self._watch = watch
        self._model: Model | None = None
        self._round = Round()
        self._client: EngineClient | None = None

    async def start(self) -> None:
        """Find the model, start the engine. Raises ValueError or EngineDeadError saying what is wrong."""
        args = self._args
        folder = await asyncio.to_thread(find_folder, args)
        tokenizer = None if args.skip_tokenizer_init else await asyncio.to_thread(load_tokenizer, args, folder)
        generation = generation_config(args, folder)
        words = {**asdict(args), "model": None if args.model is None else str(folder)}
        self._client = EngineClient(words, self._watch.on_stats if self._watch is not None else None)
        ready = await self._client.start()
        limits = Limits(ready.vocab_size, ready.max_model_len, ready.max_logprobs)
        self._model = Model(
            folder=folder,
            intake=Intake(tokenizer, limits, generation, args.seed, ready.only, bool(args.logits_processors)),
            ready=ready,
            tokenizer=tokenizer,
            make_decoder=decoder_maker(tokenizer),
            token_text=None if tokenizer is None else token_text(tokenizer),
            default_sampling=default_sampling(args, generation),
            compiler_words={} if tokenizer is None else compiler_words(args, folder, ready.vocab_size),
        )

    async def stop(self) -> None:
        """End the engine. Safe to call twice."""
        if self._client is not None:
            await self._client.stop()

    @property
    def is_started(self) -> bool:
        """Whether the engine has been ready once, so that requests may come."""
        return self._model is not None

    @property
    def model(self) -> Model:
        """What is served."""
        assert self._model is not None, "the front has not started"
        return self._model

    @property
    def client(self) -> EngineClient:
        """The engine's other end."""
        assert self._client is not None, "the front has not started"
        return self._client

    async def take(
        self,
        request_id: str,
        prompt: TypedPrompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        tenant: str = "",
        special: bool = True,
        shown: frozenset[int] = frozenset(),
        features: Mapping[str, object] | None = None,
    ) -> Delivery:
        """Check and tokenise one prompt. `shown` are special tokens that are text all the same.

        Raises ValueError naming what is wrong with it.
        """
        if params.logits_processors:
            raise ValidationError("logits_processors are functions and cannot be sent.", field="logits_processors")

        def take() -> Delivery:
            taken = self.model.intake.take(
                request_id,
                prompt,
                params,
                priority=priority,
                tenant=tenant,
                add_special_tokens=special,
                features=features,
            )
            longest = self.model.ready.longest
            if taken.request.max_len > longest:
                raise CapacityError(
                    f"prompt and output may reach {taken.request.max_len} tokens, but the KV cache holds {longest} at "
                    f"most; ask for at most {longest} tokens in all."
                )
            return Delivery(taken, self.model.make_decoder, self.model.token_text, shown)

        if len(prompt.get("prompt") or "") > _AT_ONCE and "prompt_token_ids" not in prompt:
            return await asyncio.to_thread(take)
        return take()

    def open(self, deliveries: Sequence[Delivery]) -> Flow:
        """Queue what `take` returned, all for one caller. EngineDeadError when the engine is gone for good."""
        flow = Flow(deliveries, self._abort, self._round)
        try:
            for place, delivery in enumerate(deliveries):
                self.client.add(delivery.taken.request, self._sink(flow, place, delivery))
        except BaseException:
            flow.close()
            raise
        return flow

    def _abort(self, delivery: Delivery) -> None:
        """Nobody wants the rest of this request."""
        self.client.abort(delivery.taken.request.request_id)
        if self._watch is not None:
            self._watch.on_abort(delivery)

    def _sink(self, flow: Flow, place: int, delivery: Delivery) -> Callable[[SequenceUpdate], None]:
        """What to do with each update of a request."""
        request_id, watch = delivery.taken.request.request_id, self._watch
        last_at = 0.0

        def sink(update: SequenceUpdate) -> None:
            nonlocal last_at
            try:
                output, stopped = delivery.feed(update)
                if stopped:
                    self.client.abort(request_id, update.index)
                now = time.monotonic()
                if watch is not None:
                    watch.on_update(delivery, update, now - last_at if last_at else 0.0)
                last_at = now
                finished = delivery.finished
                if finished and delivery.error is not None:
                    flow.fail(EngineGenerateError(f"The request failed: {delivery.error}"))
                flow.put(place, output, finished)
            except Exception as error:  # why: whatever goes wrong with one text must not reach the others
                _log.exception("A request's output could not be made.")
                self.client.abort(request_id)
                flow.fail(EngineGenerateError(f"The output could not be made: {type(error).__name__}."))

        return sink
