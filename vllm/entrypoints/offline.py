"""The engine as a Python object: requests in, RequestOutputs out, one `step` at a time. No sockets, one process.

For: LLM, and users who drive vLLM's LLMEngine loop themselves. Does not know: HTTP, devices, how the parts were put
together (assembly.py does). Invariant: a request that is refused has changed nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vllm.assembly import Assembled, assemble
from vllm.chat.template import shown_template
from vllm.engine.deliver import Delivery
from vllm.entrypoints.interrupt import between_steps
from vllm.entrypoints.profile import Profile
from vllm.entrypoints.readings import Counts
from vllm.entrypoints.turn import ToolRules, Turn
from vllm.entrypoints.upkeep import Upkeep
from vllm.errors import EngineDeadError, EngineGenerateError, RefusedError, ValidationError
from vllm.features.pooling.host import NOT_LOADED
from vllm.formats.choose import choose
from vllm.formats.format import Format
from vllm.inputs import PromptType, TypedPrompt, normalize_prompt
from vllm.outputs import RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.scheduler.batch import longest_first

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs
    from vllm.config.objects import ModelConfig


class LLMEngine:
    """One model, ready to generate. Make it with `from_engine_args`; `close` gives all memory back."""

    def __init__(self, args: "EngineArgs", is_watched: bool = False) -> None:
        """`is_watched`: tokens are read as they come, so no step may keep them waiting for long."""
        self._args = args
        self._assembled: Assembled | None = assemble(args, is_watched)
        self._deliveries: dict[str, Delivery] = {}
        self.tokenizer = self._assembled.tokenizer
        self.vllm_config = self._assembled.vllm_config
        self.vllm_config.model_config.update(model_config_view(self._assembled))
        self.model_config = self.vllm_config.model_config
        self.cache_config, self.scheduler_config = self.vllm_config.cache_config, self.vllm_config.scheduler_config
        self.upkeep = Upkeep(self._assembled)
        self._profile: Profile | None = None
        self._counts = None if args.disable_log_stats else _counts(self._assembled, args)

    @classmethod
    def from_engine_args(cls, engine_args: "EngineArgs", *_: Any, **__: Any) -> "LLMEngine":
        """An engine for these arguments; what vLLM takes beside them (usage context, loggers) has no meaning here."""
        return cls(engine_args)

    @property
    def assembled(self) -> Assembled:
        """The parts. Raises EngineDeadError after `close`."""
        if self._assembled is None:
            raise EngineDeadError("This engine was closed; make a new one.")
        return self._assembled

    def add_request(
        self,
        request_id: str,
        prompt: PromptType,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        *,
        add_special_tokens: bool = True,
    ) -> str:
        """Queue one prompt under `request_id`. Raises ValueError when it cannot be served; nothing changes then."""
        del arrival_time, trace_headers
        if lora_request is not None:
            raise RefusedError("lora_request: adapters are not supported yet.", field="lora_request")
        if request_id in self._deliveries:
            raise ValueError(f"request_id {request_id!r} is in use; give each request its own.")
        special = bool((tokenization_kwargs or {}).get("add_special_tokens", add_special_tokens))
        typed = normalize_prompt(prompt)
        return self.add_checked(self.take(request_id, typed, params, priority, special))

    def take(
        self,
        request_id: str,
        prompt: TypedPrompt,
        params: SamplingParams,
        priority: int = 0,
        special: bool = True,
        max_logprobs: int | None = None,
        thinks: bool = False,
    ) -> Delivery:
        """Check and tokenise one prompt without queueing it. `thinks`: the answer may begin with thoughts."""
        parts = self.assembled
        self.upkeep.check_awake()
        for one in parts.workers.processors:
            one.validate_params(params)
        taken = parts.intake.take(
            request_id,
            prompt,
            params,
            priority=priority,
            add_special_tokens=special,
            max_logprobs=max_logprobs,
            features=self._features(prompt, params, thinks),
        )
        parts.engine.scheduler.door.check_fits(taken.request.max_len)
        return Delivery(taken, parts.make_decoder, parts.token_text)

    def take_pooling(self, request_id: str, prompt: TypedPrompt, params: PoolingParams) -> Delivery:
        """Check and tokenise a prompt that becomes an embedding: the delivery's `states`, once it has finished."""
        parts = self.assembled
        self.upkeep.check_awake()
        if parts.recipe is None:
            raise RefusedError(NOT_LOADED)
        sampling, features = parts.recipe.take(params)
        taken = parts.intake.take(request_id, prompt, sampling, features=features)
        parts.engine.scheduler.door.check_fits(taken.request.max_len)
        return Delivery(taken, None, None)

    def _features(self, prompt: TypedPrompt, params: SamplingParams, thinks: bool) -> dict[str, object]:
        """What the request carries for features."""
        structured = self.assembled.structured
        if params.structured_outputs is None or structured is None:
            return {}
        text = prompt.get("prompt") or self.tokenizer.decode((prompt.get("prompt_token_ids") or [])[-8:])
        turn = Turn.of(self._format, ToolRules(), str(text), self.tokenizer)
        return structured.take(params, turn.thinking(thinks, self.tokenizer))

    def judge(self, params: SamplingParams) -> None:
        """Judge the grammar of `params` now, so that `take` need not wait. From any thread. Raises ValidationError."""
        if self.assembled.structured is not None:
            self.assembled.structured.take(params)

    @cached_property
    def _format(self) -> Format:
        template = shown_template(self.tokenizer, self._args.chat_template)
        return choose(template, reasoning=self._args.reasoning_parser).format

    def add_checked(self, delivery: Delivery, arrival: float | None = None) -> str:
        """Queue what `take` returned. `arrival`: another than when it was taken."""
        request = delivery.taken.request
        if arrival is not None:
            request = replace(request, arrival=arrival)
        self.assembled.engine.add(request)
        self._deliveries[request.request_id] = delivery
        return request.request_id

    def step(self) -> list[RequestOutput]:
        """One step of the engine; the outputs it made. Raises EngineGenerateError where a request failed inside."""
        outputs, failed = self.step_apart()
        for request_id, error in failed.items():
            raise EngineGenerateError(f"Request {request_id} failed: {error}")
        return outputs

    def step_apart(self) -> tuple[list[RequestOutput], dict[str, str]]:
        """One step: the outputs it made, and request id -> reason of those that failed inside."""
        outputs: list[RequestOutput] = []
        failed: dict[str, str] = {}
        engine = self.assembled.engine
        if self._deliveries:
            self.upkeep.make_ready()
        for update in engine.step():
            delivery = self._deliveries.get(update.request_id)
            if delivery is None:
                continue
            output, stopped = delivery.feed(update)
            if self._counts is not None:
                self._counts.on_update(delivery, update)
            if stopped:
                engine.abort(update.request_id, update.index)
            if delivery.finished:
                del self._deliveries[update.request_id]
            if delivery.error is not None and delivery.finished:
                failed[update.request_id] = delivery.error
            elif output is not None:
                outputs.append(output)
        if self._profile is not None:
            self._profile.step()
        return outputs, failed

    def abort_request(self, request_ids: str | Iterable[str]) -> None:
        """Drop requests; unknown ids are ignored."""
        for request_id in [request_ids] if isinstance(request_ids, str) else list(request_ids):
            if self._deliveries.pop(request_id, None) is not None:
                self.assembled.engine.abort(request_id)

    def end_all(self) -> None:
        """End every request with finish_reason "abort"; their last outputs come with the next steps."""
        for request_id in self._deliveries:
            self.assembled.engine.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        """Whether `step` has work left."""
        return bool(self._deliveries)

    def get_num_unfinished_requests(self) -> int:
        """Requests queued or running."""
        return len(self._deliveries)

    def get_tokenizer(self) -> Any:
        """The model's tokenizer, None with skip_tokenizer_init."""
        return self.tokenizer

    def get_model_config(self) -> "ModelConfig":
        """What tools read of the model: max_model_len, dtype, vocabulary, config."""
        return self.model_config

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Forget every cached prefix. Requests that run go on, or (`reset_running_requests`) are computed again.

        Always True: nothing holds a prefix that could not be forgotten.
        """
        del reset_connector  # why: there is no cache but this one
        if reset_running_requests:
            self.assembled.engine.vacate()
        self.assembled.engine.reset_prefix_cache()
        return True

    def reset_mm_cache(self) -> None:
        """Nothing: only text is read."""

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """Give back the memory of weights and cache; `mode` "abort" ends what runs, "keep" goes on after waking."""
        if mode not in ("abort", "keep"):
            raise ValidationError.of("mode", mode, "'abort' or 'keep'")
        if mode == "abort":
            self.abort_request(list(self._deliveries))
        self.upkeep.sleep(level)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Take the memory back and read the weights again."""
        self.upkeep.wake_up(tags)

    def is_sleeping(self) -> bool:
        """Whether `wake_up` must come before the next request."""
        return self.upkeep.is_sleeping

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        """New tensors, by their names in a checkpoint, from the next step on; sequences that run are computed again."""
        return self.upkeep.load_weights(weights)

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What the workers answer to a method of theirs, or to a function that takes the worker first."""
        del timeout  # why: the worker is in this process, and its method is a call
        return self.upkeep.rpc(method, args, kwargs)

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        """What `func` makes of the network, per worker."""
        return [self.upkeep.worker().apply_model(func)]

    @property
    def model_executor(self) -> SimpleNamespace:
        """Where RL trainers look for the model: model_executor.driver_worker.model_runner.model.load_weights(...)."""
        worker = self.upkeep.worker()
        return SimpleNamespace(driver_worker=worker, collective_rpc=self.collective_rpc)

    def start_profile(self, profile_prefix: str | None = None) -> None:
        """Trace the steps from now on; see profiler_config."""
        if self._profile is not None:
            raise ValidationError("start_profile was called before; call stop_profile first.")
        self._profile = Profile(self._args.profiler_config or {}, profile_prefix)

    def stop_profile(self) -> None:
        """Write the trace; its path is in the log."""
        if self._profile is None:
            raise ValidationError("stop_profile needs a start_profile before it.")
        profile, self._profile = self._profile, None
        profile.stop()

    def get_metrics(self) -> list[Any]:
        """The counts that a server shows at /metrics, as objects of vllm.v1.metrics.reader."""
        if self._counts is None:
            raise RefusedError("get_metrics needs disable_log_stats=False; an LLM does not count unless asked.")
        return self._counts.read(self.assembled.engine.stats())

    def do_log_stats(self) -> None:
        """Nothing: lines of throughput are the server's."""

    def get_supported_tasks(self) -> tuple[str, ...]:
        """What `LLM` can do with this model."""
        return ("generate",) if self.assembled.recipe is None else ("embed", "token_embed")

    def add_lora(self, *_: Any) -> bool:
        """Refused: there are no adapters."""
        raise RefusedError("adapters are not supported yet.", field="lora_request")

    def close(self) -> None:
        """Give all memory back. Safe to call twice."""
        if self._assembled is not None:
            self._assembled.engine.close()
            if self._assembled.structured is not None:
                self._assembled.structured.close()
            self._assembled = None
            self._deliveries.clear()

    def run(
        self, deliveries: Sequence[Delivery], on_output: Callable[[RequestOutput], None] | None = None
    ) -> list[RequestOutput]:
        """Queue all, step until all are done, and return the final outputs in the order given.

        They arrive at once, so the longest may be served first (scheduler/batch.py). An exception on the way (a failed
        request, Ctrl-C) drops the rest of this batch before it goes on.
        """
        done: dict[str, RequestOutput] = {}
        try:
            requests = [delivery.taken.request for delivery in deliveries]
            engine = self.assembled.engine
            for i in longest_first(requests, engine.plan, engine.kv.plan):
                self.add_checked(deliveries[i], requests[0].arrival)
            with between_steps() as pause:
                while len(done) < len(deliveries):
                    pause()
                    for output in self.step():
                        if output.finished:
                            done[output.request_id] = output
                            if on_output is not None:
                                on_output(output)
        finally:
            self.abort_request([d.taken.request.request_id for d in deliveries])
        return [done[d.taken.request.request_id] for d in deliveries]


def final_only(params: SamplingParams) -> SamplingParams:
    """A copy that asks for one output at the end."""
    params = params.clone()
    params.output_kind = RequestOutputKind.FINAL_ONLY
    return params


def _counts(parts: Assembled, args: "EngineArgs") -> Counts:
    name = (args.served_model_name or (args.model or "builtin",))[0]
    return Counts(parts.plan.kv.num_blocks, parts.plan.kv.groups[0].block_size, name)


def model_config_view(parts: Assembled) -> dict[str, Any]:
    """What tools read of vLLM's ModelConfig beside the plan, as plain values."""
    return {
        "seed": parts.seed,
        "generation_config": parts.generation_config,
        "is_encoder_decoder": False,
        "is_multimodal_model": False,
        "runner_type": "generate" if parts.recipe is None else "pooling",
        "get_diff_sampling_param": lambda: dict(parts.default_sampling),
    }
