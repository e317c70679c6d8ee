"""The engine as a Python object: requests in, RequestOutputs out, one `step` at a time. No sockets, one process.

For: LLM, and users who drive vLLM's LLMEngine loop themselves. Does not know: HTTP, devices, how the parts were put
together (assembly.py does). Invariant: a request that is refused has changed nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vllm.assembly import Assembled, assemble
from vllm.chat.template import shown_template
from vllm.engine.deliver import Delivery
from vllm.entrypoints.interrupt import between_steps
from vllm.entrypoints.turn import ToolRules, Turn
from vllm.errors import EngineDeadError, EngineGenerateError, RefusedError
from vllm.features.pooling.host import NOT_LOADED
from vllm.formats.choose import choose
from vllm.formats.format import Format
from vllm.inputs import PromptType, TypedPrompt, normalize_prompt
from vllm.outputs import RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs


class LLMEngine:
    """One model, ready to generate. Make it with `from_engine_args`; `close` gives all memory back."""

    def __init__(self, args: "EngineArgs", is_watched: bool = False) -> None:
        """`is_watched`: tokens are read as they come, so no step may keep them waiting for long."""
        self._args = args
        self._assembled: Assembled | None = assemble(args, is_watched)
        self._deliveries: dict[str, Delivery] = {}
        self.tokenizer = self._assembled.tokenizer
        self.model_config = model_config_view(self._assembled)
        self.vllm_config = SimpleNamespace(model_config=self.model_config, plan=self._assembled.plan)

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

    def add_checked(self, delivery: Delivery) -> str:
        """Queue what `take` returned."""
        request = delivery.taken.request
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
        for update in engine.step():
            delivery = self._deliveries.get(update.request_id)
            if delivery is None:
                continue
            output, stopped = delivery.feed(update)
            if stopped:
                engine.abort(update.request_id, update.index)
            if delivery.finished:
                del self._deliveries[update.request_id]
            if delivery.error is not None and delivery.finished:
                failed[update.request_id] = delivery.error
            elif output is not None:
                outputs.append(output)
        return outputs, failed

    def abort_request(self, request_ids: str | Iterable[str]) -> None:
        """Drop requests; unknown ids are ignored."""
        for request_id in [request_ids] if isinstance(request_ids, str) else list(request_ids):
            if self._deliveries.pop(request_id, None) is not None:
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

    def get_model_config(self) -> SimpleNamespace:
        """What tools read of the model: max_model_len, dtype, vocabulary, config."""
        return self.model_config

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; requests that run are not disturbed. Always True."""
        self.assembled.engine.reset_prefix_cache()
        return True

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

        An exception on the way (a failed request, Ctrl-C) drops the rest of this batch before it goes on.
        """
        done: dict[str, RequestOutput] = {}
        try:
            for delivery in deliveries:
                self.add_checked(delivery)
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


def model_config_view(parts: Assembled) -> SimpleNamespace:
    """The attributes of vLLM's ModelConfig that tools read, as plain values."""
    plan, hf = parts.plan, parts.hf_config
    vocab = parts.intake.limits.vocab_size
    return SimpleNamespace(
        model=plan.load.path,
        tokenizer=plan.load.path,
        max_model_len=plan.scheduler.max_model_len,
        dtype=plan.worker.dtype,
        seed=parts.seed,
        max_logprobs=plan.worker.max_logprobs,
        hf_config=SimpleNamespace(**hf),
        hf_text_config=SimpleNamespace(**(hf.get("text_config") or hf)),
        generation_config=parts.generation_config,
        is_encoder_decoder=False,
        runner_type="generate" if parts.recipe is None else "pooling",
        get_vocab_size=lambda: vocab,
        get_diff_sampling_param=lambda: dict(parts.default_sampling),
    )
