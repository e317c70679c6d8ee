"""LLM: the offline door. Prompts in, finished RequestOutputs out, in one process.

For: scripts (no `__main__` guard needed: nothing is forked or spawned). Does not know: devices, scheduling, HTTP.
Invariant: `generate` checks every prompt before the first one runs, so a bad one costs nothing but its error.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vllm.errors import RefusedError, ValidationError, VllmError
from vllm.inputs import PromptType, TokensPrompt, TypedPrompt, normalize_prompts
from vllm.outputs import (
    BeamSearchOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
    ScoringRequestOutput,
)
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import BeamSearchParams, SamplingParams

if TYPE_CHECKING:
    from vllm.entrypoints.embed import Embedder

Messages = Sequence[Mapping[str, Any]]


class LLM:
    """A model to generate with.

    `LLM()` takes the built-in demonstration model; `model` is a local folder, a Hugging Face cache folder or a hub id.
    Keywords are vLLM's engine arguments; `vllm serve --help` and docs/ list them. An unknown one is a TypeError that
    names the nearest; one that would change answers, limits or security and is not built is a ValueError with the
    reason; one that only tunes speed or logging is accepted and named once.
    """

    def __init__(self, model: str | None = None, **kwargs: Any) -> None:
        from vllm.config.args import EngineArgs

        kwargs.setdefault("disable_log_stats", True)  # why: counting costs time in every step, and few ask
        # why: the sentence says it all; frames of our insides above it would only hide it
        try:
            args = EngineArgs(model, **kwargs)
        except (VllmError, TypeError) as error:
            raise error.with_traceback(None) from None
        try:
            self._start(args)
        except VllmError as error:
            raise error.with_traceback(None) from None

    @classmethod
    def from_engine_args(cls, engine_args: Any) -> "LLM":
        """An LLM for EngineArgs made elsewhere."""
        llm = cls.__new__(cls)
        llm._start(engine_args)
        return llm

    def _start(self, args: Any) -> None:
        # why: `from vllm import LLM` must cost milliseconds, and the engine's rooms are many
        from vllm.entrypoints.offline import LLMEngine

        self._closed = False
        self.llm_engine = LLMEngine.from_engine_args(args)
        self._ids = itertools.count()
        self._chat_template = args.chat_template

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back all memory: weights, KV cache, workers. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.llm_engine.close()

    def get_tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.llm_engine.get_tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """What `generate` uses when it is given none: the model's generation_config.json, else the defaults."""
        return SamplingParams(**self.llm_engine.assembled.default_sampling)

    def get_world_size(self, include_dp: bool = True) -> int:
        """Number of workers."""
        del include_dp
        worker = self.llm_engine.assembled.plan.worker
        return worker.tp_size * worker.pp_size

    def tokenize(self, text: str | Sequence[str], add_special_tokens: bool = True) -> list[int] | list[list[int]]:
        """Token ids of one text, or of each of several."""
        tokenizer = self._tokenizer()
        if isinstance(text, str):
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return [tokenizer.encode(one, add_special_tokens=add_special_tokens) for one in text]

    def detokenize(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of token ids."""
        return self._tokenizer().decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType] | None = None,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        priority: Sequence[int] | None = None,
        prompt_token_ids: Sequence[Sequence[int]] | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Generate for one prompt or many; outputs come in the order of the prompts.

        `sampling_params`: one for all, or one per prompt; None takes the model's defaults. `priority`: one per prompt,
        lower runs first. Raises ValueError naming the prompt and what is wrong with it before anything runs.
        """
        if prompts is None:
            prompts = prompt_token_ids  # type: ignore[assignment]
        if prompts is None:
            raise ValidationError("prompts is missing.", field="prompts")
        return self._run(normalize_prompts(prompts), sampling_params, use_tqdm, lora_request, priority, special=True)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or several (lists of {"role", "content"}), through the model's chat template."""
        if mm_processor_kwargs:
            raise RefusedError("mm_processor_kwargs: this model takes text only.", field="mm_processor_kwargs")
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        options = {
            "tools": tools,
            "chat_template": chat_template or self._chat_template,
            "content_format": chat_template_content_format,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            **(chat_template_kwargs or {}),
        }
        prompts = [self._render(one, **options) for one in conversations]

        def thinks(i: int) -> bool:
            from vllm.chat.template import thinks_by_default

            return thinks_by_default(self._tokenizer(), conversations[i], str(prompts[i].get("prompt")), **options)

        return self._run(prompts, sampling_params, use_tqdm, lora_request, None, special=False, thinks=thinks)

    def beam_search(
        self,
        prompts: Sequence[PromptType],
        params: BeamSearchParams,
        lora_request: Any = None,
        use_tqdm: bool = False,
        concurrency_limit: int | None = None,
    ) -> list[BeamSearchOutput]:
        """The `params.beam_width` most likely continuations of each prompt, best first."""
        del use_tqdm
        if lora_request is not None:
            raise RefusedError("lora_request: adapters are not supported yet.", field="lora_request")
        from vllm.entrypoints.beam import BeamSearch

        typed = normalize_prompts(prompts)
        size = concurrency_limit or max(1, len(typed))
        found: list[BeamSearchOutput] = []
        for first in range(0, len(typed), size):
            found.extend(BeamSearch(self.llm_engine, params).search(typed[first : first + size]))
        return found

    def embed(
        self,
        prompts: PromptType | Sequence[PromptType],
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        lora_request: Any = None,
    ) -> list[EmbeddingRequestOutput]:
        """The embedding of each prompt, of a model loaded with runner="pooling"."""
        changes = {"truncate_prompt_tokens": truncate_prompt_tokens, "lora_request": lora_request}
        return self._embedder().embed(prompts, pooling_params, use_tqdm, **changes)

    def encode(
        self,
        prompts: PromptType | Sequence[PromptType],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        pooling_task: str | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """As `embed`, as tensors; `pooling_task` "token_embed" gives one vector per token."""
        changes = {"truncate_prompt_tokens": truncate_prompt_tokens, "lora_request": lora_request, "task": pooling_task}
        return self._embedder().encode(prompts, pooling_params, use_tqdm, **changes)

    def score(
        self,
        data_1: PromptType | Sequence[PromptType],
        data_2: PromptType | Sequence[PromptType],
        /,
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        lora_request: Any = None,
    ) -> list[ScoringRequestOutput]:
        """The cosine between the embeddings of each pair; one text in `data_1` goes with all of `data_2`."""
        changes = {"truncate_prompt_tokens": truncate_prompt_tokens, "lora_request": lora_request}
        return self._embedder().score(data_1, data_2, pooling_params, use_tqdm, **changes)

    def classify(self, *_: Any, **__: Any) -> Any:
        """Refused: it needs a head that no supported model has."""
        raise RefusedError("classify: models with a head for classes are not supported yet; embed and score are.")

    def reward(self, *_: Any, **__: Any) -> Any:
        """Refused: it needs a head that no supported model has."""
        raise RefusedError("reward: models with a head for rewards are not supported yet; embed and score are.")

    def _embedder(self) -> "Embedder":
        from vllm.entrypoints.embed import Embedder

        return Embedder(self.llm_engine, self._ids)

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Forget every cached prefix."""
        return self.llm_engine.reset_prefix_cache(reset_running_requests, reset_connector)

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """Give back the memory of weights and cache until `wake_up`. Both levels read the weights again on waking."""
        self.llm_engine.sleep(level, mode)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Take the memory back: `weights`, `kv_cache`, or both (None)."""
        self.llm_engine.wake_up(tags)

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What the worker answers to a method of its own, or to a function that takes it first; one per worker."""
        return self.llm_engine.collective_rpc(method, timeout, args, kwargs)

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        """What `func` makes of the running network, one per worker."""
        return self.llm_engine.apply_model(func)

    def start_profile(self, profile_prefix: str | None = None) -> None:
        """Trace the engine's steps from now on; `profiler_config` says where to."""
        self.llm_engine.start_profile(profile_prefix)

    def stop_profile(self) -> None:
        """Write the trace."""
        self.llm_engine.stop_profile()

    def get_metrics(self) -> list[Any]:
        """The counts that a server shows at /metrics; needs disable_log_stats=False."""
        return self.llm_engine.get_metrics()

    @property
    def model_config(self) -> Any:
        """What tools read of the model: max_model_len, dtype, vocabulary, config."""
        return self.llm_engine.model_config

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """What this model can do here."""
        return self.llm_engine.get_supported_tasks()

    def _tokenizer(self) -> Any:
        tokenizer = self.get_tokenizer()
        if tokenizer is None:
            raise RefusedError("skip_tokenizer_init=True left the tokenizer out.", field="skip_tokenizer_init")
        return tokenizer

    def _render(self, messages: Messages, **options: Any) -> TypedPrompt:
        from vllm.chat.template import render

        tokenizer = self._tokenizer()
        text = render(tokenizer, messages, **options)
        # why: a template writes its own special tokens, so the tokenizer must add none
        return TokensPrompt(prompt=text, prompt_token_ids=tokenizer.encode(text, add_special_tokens=False))

    def _run(
        self,
        prompts: list[TypedPrompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        use_tqdm: bool | Callable[..., Any],
        lora_request: Any,
        priority: Sequence[int] | None,
        special: bool,
        thinks: Callable[[int], bool] = lambda i: False,
    ) -> list[RequestOutput]:
        """`thinks`: whether the answer to prompt i may begin with thoughts; asked where a constraint needs to know."""
        if lora_request is not None:
            raise RefusedError("lora_request: adapters are not supported yet.", field="lora_request")
        params = self._params(sampling_params, len(prompts))
        if priority is not None and len(priority) != len(prompts):
            raise ValidationError.of("priority", f"{len(priority)} numbers", f"one per prompt ({len(prompts)})")
        deliveries = []
        for i, (prompt, one) in enumerate(zip(prompts, params, strict=True)):
            try:
                may_think = one.structured_outputs is not None and thinks(i)
                rank = priority[i] if priority else 0
                taken = self.llm_engine.take(str(next(self._ids)), prompt, one, rank, special, thinks=may_think)
            except ValueError as error:
                if len(prompts) > 1:
                    error.args = (f"prompts[{i}]: {error}",)
                raise
            deliveries.append(taken)
        from vllm.entrypoints.progress import Progress

        with Progress(use_tqdm, len(deliveries)) as bar:
            return self.llm_engine.run(deliveries, bar.note)

    def _params(self, given: SamplingParams | Sequence[SamplingParams] | None, count: int) -> Sequence[SamplingParams]:
        """One SamplingParams per prompt, each asking for its output at the end."""
        from vllm.entrypoints.offline import final_only

        if given is None:
            given = self.get_default_sampling_params()
        if isinstance(given, SamplingParams):
            return [final_only(given)] * count
        if not isinstance(given, Sequence) or not all(isinstance(one, SamplingParams) for one in given):
            raise TypeError(f"sampling_params must be a SamplingParams or a list of them, got {type(given).__name__}.")
        if len(given) != count:
            raise ValidationError.of("sampling_params", f"{len(given)} of them", f"one, or one per prompt ({count})")
        return [final_only(one) for one in given]
