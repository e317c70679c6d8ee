"""The engine for asyncio: `async for output in engine.generate(prompt, params, request_id)`.

    event loop ── commands ──▶ one thread that owns the LLMEngine and steps it ── outputs ──▶ a queue per request

The thread sleeps while there is nothing to do. Does not know: HTTP. Invariants: the LLMEngine is touched by its thread
only; a failed request raises in its own generator and nowhere else; leaving a generator early aborts its request.
Callers: users (vllm.v1.engine.async_llm), the server.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from vllm.config.args import EngineArgs
from vllm.entrypoints.offline import LLMEngine
from vllm.errors import EngineDeadError, EngineGenerateError, RefusedError, ValidationError
from vllm.inputs import PromptType
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams

_Sink = Callable[[RequestOutput | BaseException], None]


class AsyncLLM:
    """One model behind an event loop. Make it with `from_engine_args`; `shutdown` gives all memory back."""

    def __init__(self, engine: LLMEngine) -> None:
        self.engine = engine
        self.model_config = engine.model_config
        self.vllm_config = engine.vllm_config
        self.tokenizer = engine.tokenizer
        self.output_processor = engine  # why: trainers ask it how many requests have not finished
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sinks: dict[str, _Sink] = {}  # the thread's own
        self._held: list[Callable[[], None]] = []
        """Requests that came while it was paused; the thread's own."""
        self._is_paused = self._is_still = False
        self._cause: BaseException | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="vllm-engine", daemon=True)
        self._thread.start()

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs, *_: Any, **__: Any) -> AsyncLLM:
        """An engine for these arguments; what vLLM takes beside them (usage context, loggers) has no meaning here."""
        return cls(LLMEngine(engine_args, is_watched=True))

    # ---- the event loop's side ---------------------------------------------------------------------------------------

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        lora_request: Any = None,
        trace_headers: Any = None,
        priority: int = 0,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of one request as they come, the last with `finished` True.

        Raises ValueError for a bad prompt or parameter, EngineGenerateError, EngineDeadError.
        """
        del trace_headers
        if lora_request is not None:
            raise RefusedError("lora_request: adapters are not supported yet.", field="lora_request")
        if sampling_params and sampling_params.structured_outputs:  # why: the engine's thread must not wait for it
            await asyncio.to_thread(self.engine.judge, sampling_params)
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[RequestOutput | BaseException] = asyncio.Queue()

        def sink(item: RequestOutput | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(inbox.put_nowait, item)

        self._send(lambda: self._add(request_id, prompt, sampling_params, priority, options, sink), sink)
        is_done = False
        try:
            while not is_done:
                item = await inbox.get()
                is_done = isinstance(item, BaseException) or item.finished
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if not is_done:
                self._send(lambda: self._drop(request_id))

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """Drop requests; their generators end with EngineGenerateError. Unknown ids are ignored."""
        for one in [request_id] if isinstance(request_id, str) else list(request_id):
            self._send(lambda one=one: self._drop(one, "it was aborted"))  # type: ignore[misc]

    async def get_tokenizer(self, *_: Any) -> Any:
        """The model's tokenizer."""
        return self.tokenizer

    async def get_model_config(self) -> Any:
        """What tools read of the model."""
        return self.model_config

    @classmethod
    def from_vllm_config(cls, vllm_config: Any, *_: Any, **__: Any) -> AsyncLLM:
        """An engine for what `EngineArgs.create_engine_config` made."""
        return cls.from_engine_args(vllm_config.engine_args)

    async def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Forget every cached prefix; requests that run are not disturbed, or (`reset_running_requests`) start anew."""
        ask = self.engine.reset_prefix_cache
        return await self._ask(lambda: ask(reset_running_requests, reset_connector))  # type: ignore[no-any-return]

    async def pause_generation(
        self, *, mode: str = "abort", wait_for_inflight_requests: bool = False, clear_cache: bool = True
    ) -> None:
        """Hold back new requests until `resume_generation`. What runs is ended ("abort", with finish_reason "abort"),
        comes to its end first ("wait"), or stands still ("keep")."""
        mode = "wait" if wait_for_inflight_requests else mode
        if mode not in ("abort", "wait", "keep"):
            raise ValidationError.of("mode", mode, "'abort', 'wait' or 'keep'")
        await self._ask(lambda: self._pause(mode))
        while mode != "keep" and await self._ask(self.engine.has_unfinished_requests):
            await asyncio.sleep(0.005)
        if clear_cache and mode != "keep":
            await self.reset_prefix_cache()

    async def resume_generation(self) -> None:
        """Go on, with what was held back."""
        await self._ask(self._resume)

    async def is_paused(self) -> bool:
        """Whether `resume_generation` must come first."""
        return self._is_paused

    async def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """Give back the memory of weights and cache until `wake_up`; see LLM.sleep."""
        await self._ask(lambda: self._pause("abort" if mode == "abort" else "keep"))
        while mode == "abort" and await self._ask(self.engine.has_unfinished_requests):
            await asyncio.sleep(0.005)
        await self._ask(lambda: self.engine.sleep(level, mode))

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Take the memory back, and go on."""
        await self._ask(lambda: self.engine.wake_up(tags))
        if not self.engine.is_sleeping():
            await self._ask(self._resume)

    async def is_sleeping(self) -> bool:
        """Whether `wake_up` must come before the next request."""
        return self.engine.is_sleeping()

    async def collective_rpc(
        self, method: Any, timeout: float | None = None, args: Any = (), kwargs: Any = None
    ) -> list[Any]:
        """See LLM.collective_rpc; between two steps."""
        ask = self.engine.collective_rpc
        return await self._ask(lambda: ask(method, timeout, args, kwargs))  # type: ignore[no-any-return]

    async def start_profile(self, profile_prefix: str | None = None) -> None:
        """Trace the engine's steps from now on; `profiler_config` says where to."""
        await self._ask(lambda: self.engine.start_profile(profile_prefix))

    async def stop_profile(self) -> None:
        """Write the trace."""
        await self._ask(self.engine.stop_profile)

    async def get_supported_tasks(self) -> tuple[str, ...]:
        """What this model can do here."""
        return self.engine.get_supported_tasks()

    async def get_vllm_config(self) -> Any:
        """The plan in vLLM's words."""
        return self.vllm_config

    async def is_tracing_enabled(self) -> bool:
        """Never: spans are the server's."""
        return False

    async def do_log_stats(self) -> None:
        """Nothing: lines of throughput are the server's."""

    async def check_health(self) -> None:
        """Raises EngineDeadError when the engine has stopped."""
        self._check()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive() and self._cause is None

    @property
    def is_stopped(self) -> bool:
        return not self.is_running

    @property
    def errored(self) -> bool:
        return self._cause is not None

    @property
    def dead_error(self) -> BaseException:
        return EngineDeadError(f"The engine has stopped: {self._cause or 'it was shut down'}.")

    def shutdown(self, *_: Any) -> None:
        """End open requests, give all memory back. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._commands.put(None)
            self._thread.join()

    close = shutdown

    def _check(self) -> None:
        if self._is_closed or not self.is_running:
            raise self.dead_error

    def _send(self, command: Callable[[], None], sink: _Sink | None = None) -> None:
        """Let the thread run `command`; with a `sink` it must be alive to do so."""
        if sink is not None:
            self._check()
        self._commands.put(command)

    async def _ask(self, question: Callable[[], Any]) -> Any:
        """The answer of the thread."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._check()

        def ask() -> None:
            try:
                found = question()
            except Exception as error:  # why: a question that cannot be answered is its asker's to hear
                loop.call_soon_threadsafe(answer.set_exception, error)
            else:
                loop.call_soon_threadsafe(answer.set_result, found)

        self._commands.put(ask)
        return await answer

    # ---- the thread's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Commands first, then a step while there is work; wait for a command while there is none."""
        try:
            while self._obey():
                if self._has_work():
                    self._step()
        except BaseException as error:
            self._cause = error
        finally:
            for sink in self._sinks.values():
                sink(self.dead_error)
            self._sinks.clear()
            self.engine.close()

    def _obey(self) -> bool:
        """Run the commands that are there (waiting for one if idle); False when it is time to end."""
        is_idle = not self._has_work()
        while True:
            try:
                command = self._commands.get(block=is_idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            is_idle = is_idle and not self._has_work()

    def _has_work(self) -> bool:
        return self.engine.has_unfinished_requests() and not self._is_still

    def _pause(self, mode: str) -> None:
        self._is_paused, self._is_still = True, mode == "keep"
        if mode == "abort":
            self.engine.end_all()

    def _resume(self) -> None:
        self._is_paused = self._is_still = False
        held, self._held = self._held, []
        for add in held:
            add()

    def _step(self) -> None:
        outputs, failed = self.engine.step_apart()
        for output in outputs:
            sink = self._sinks.get(output.request_id)
            if sink is not None:
                sink(output)
            if output.finished:
                self._sinks.pop(output.request_id, None)
        for request_id, reason in failed.items():
            sink = self._sinks.pop(request_id, None)
            if sink is not None:
                sink(EngineGenerateError(f"Request {request_id} failed: {reason}"))

    def _add(
        self,
        request_id: str,
        prompt: PromptType,
        params: SamplingParams,
        priority: int,
        options: dict[str, Any],
        sink: _Sink,
    ) -> None:
        if self._is_paused and not self.engine.is_sleeping():
            self._held.append(lambda: self._add(request_id, prompt, params, priority, options, sink))
            return
        try:
            self.engine.add_request(request_id, prompt, params, priority=priority, **options)
        except Exception as error:  # why: whatever is wrong with a request is its caller's to hear
            sink(error)
            return
        self._sinks[request_id] = sink

    def _drop(self, request_id: str, why: str | None = None) -> None:
        sink = self._sinks.pop(request_id, None)
        self.engine.abort_request(request_id)
        if sink is not None and why is not None:
            sink(EngineGenerateError(f"Request {request_id} ended: {why}."))


AsyncLLMEngine = AsyncLLM
