"""The composition root: EngineArgs become a Plan, the Plan becomes an engine with its workers. The one file that knows
everybody.

    args ─ folder ─ config.json ─ description ─ Plan ─▶ executor (workers) ─▶ Engine;  tokenizer ─▶ Intake

Rooms of the device tower are imported here only when a worker of this process needs them.
Called by: entrypoints.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.config.objects import VllmConfig
from vllm.engine.core import Engine
from vllm.engine.deliver import MakeDecoder, TokenText
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
from vllm.errors import ModelLoadError, RefusedError, UnknownArchitectureError
from vllm.features.pooling.host import Recipe, only, recipe_of
from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.host import GrammarCompiled, StructuredOutput
from vllm.loading import readahead
from vllm.parts.checkpoint import Weights
from vllm.parts.foreign import Foreign
from vllm.parts.hf import HFConfig
from vllm.planning.describe import Described, describe, read_config
from vllm.planning.machine import cpu_facts
from vllm.planning.plan import Plan
from vllm.planning.resolve import resolve
from vllm.planning.view import config_view
from vllm.protocol.executor import Executor
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.plan import LoadPlan
from vllm.protocol.seams import Resource
from vllm.util import env
from vllm.util.arith import human_bytes
from vllm.util.log import get_logger

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs

_log = get_logger(__name__)
_TOLD = ("dtype", "max_model_len", "quantization")


@dataclass(slots=True)
class Assembled:
    """A running engine and what the front needs beside it."""

    engine: Engine
    workers: "Workers"
    intake: Intake
    plan: Plan
    tokenizer: Any
    make_decoder: MakeDecoder | None
    token_text: TokenText | None
    hf_config: dict[str, Any]
    generation_config: dict[str, Any]
    default_sampling: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    structured: StructuredOutput | None = None
    """Takes requests with a constraint; None without a tokenizer."""
    recipe: Recipe | None = None
    """Makes embeddings; None where the model generates."""
    vllm_config: VllmConfig = field(default_factory=VllmConfig)
    """The plan in vLLM's words."""
    worker_extension: str = ""
    """A class whose methods the worker gets."""


def assemble(args: "EngineArgs", is_watched: bool = False) -> Assembled:
    """Everything for one model, ready to step. Raises ValueError (errors.py) before any weight is read where it can."""
    folder, described, plan = make_plan(args, is_watched=is_watched)
    recipe = recipe_of(args, folder)
    tokenizer = None if args.skip_tokenizer_init else load_tokenizer(args, folder)
    generation = generation_config(args, folder)
    words = {} if tokenizer is None else compiler_words(args, folder, described.decoder.vocab)
    workers = Workers(plan, described, words, args.logits_processors)
    executor, resources = make_executor(workers)
    announce(plan)
    limits = Limits(described.decoder.vocab, plan.scheduler.max_model_len, args.max_logprobs)
    return Assembled(
        engine=Engine(plan.scheduler, plan.kv, executor, resources=resources),
        workers=workers,
        intake=Intake(tokenizer, limits, generation, args.seed, only(recipe), bool(args.logits_processors)),
        plan=plan,
        tokenizer=tokenizer,
        make_decoder=decoder_maker(tokenizer),
        token_text=None if tokenizer is None else token_text(tokenizer),
        hf_config=described.config.raw(),
        generation_config=generation,
        default_sampling=default_sampling(args, generation),
        seed=args.seed,
        structured=StructuredOutput(tokenizer, words) if words else None,
        recipe=recipe,
        vllm_config=config_view(plan, described),
        worker_extension=args.worker_extension_cls or "",
    )


def make_plan(
    args: "EngineArgs", weights: bool = True, is_watched: bool = False, device: DeviceFacts | None = None
) -> tuple[Path, Described, Plan]:
    """(folder, network, Plan) without loading anything; without `weights` a hub is asked for the small files alone.

    `is_watched`: tokens are read as they come. `device`: another than this machine's.
    """
    folder = find_folder(args, weights)
    if weights:  # why: torch takes seconds to import, in which a disk can be read
        readahead.start(folder, args.load_format, cpu_facts().free_bytes // 2)
    config = override(read_config(folder), args.hf_overrides)
    if recipe_of(args, folder) is not None:
        config = without_head(config)
    described = find_network(args, folder, config)
    plan = resolve(
        args,
        described.architecture,
        described.decoder,
        str(folder),
        stored_dtype(config),
        device or device_facts(),
        described.weights,
        described.stored,
        is_watched,
    )
    return folder, described, plan


def announce(plan: Plan) -> None:
    """One line of what runs, and of each automatic choice what and why: dtype for everybody, the rest for debugging."""
    worker = plan.worker
    where = f"{plan.architecture} ({plan.num_parameters:,} parameters) as {worker.dtype} on {worker.device}"
    _log.info("%s, context %d, KV cache %s", where, plan.scheduler.max_model_len, human_bytes(plan.memory.kv))
    for knob, value, why in plan.choices:
        _log.log(logging.INFO if knob in _TOLD else logging.DEBUG, "%s = %s: %s", knob, value, why)


def find_network(args: "EngineArgs", folder: Path, config: HFConfig) -> Described:
    """Our description of the network, or transformers' own code where there is none. `model_impl` may insist on one."""
    ours: ModelLoadError | None = None
    if args.model_impl != "transformers":
        try:
            return describe(config)
        except ModelLoadError as error:
            if args.model_impl == "vllm" or not config.get("architectures"):
                raise
            ours = error
    from vllm.loading.foreign.describe import describe_foreign

    try:
        foreign = describe_foreign(folder, config.raw(), trust_remote_code=args.trust_remote_code)
    except (ModelLoadError, RefusedError):
        if ours is None or isinstance(ours, UnknownArchitectureError):
            raise
        raise ours from None
    why = "" if ours is None or isinstance(ours, UnknownArchitectureError) else f" ({ours})"
    _log.warning("%s runs through the transformers fallback%s", foreign.architecture, why)
    return Described(foreign.architecture, config, foreign, Weights(()))


def override(config: HFConfig, overrides: Any) -> HFConfig:
    """config.json with the user's hf_overrides on top (a dict, or a callable from dict to dict)."""
    if not overrides:
        return config
    if callable(overrides):
        return HFConfig(dict(overrides(dict(config.raw()))))
    if not isinstance(overrides, Mapping):
        raise ModelLoadError(f"hf_overrides must be a dict or a callable, got {type(overrides).__name__}")
    return HFConfig({**config.raw(), **overrides})


def without_head(config: HFConfig) -> HFConfig:
    """The network that embeddings are made with: a checkpoint of it may be saved under its bare name, without a head.

    The token table stands in for the head, since the engine makes a token that nobody sees.
    """
    names = [re.sub("Model$", "ForCausalLM", str(name)) for name in config.get("architectures") or []]
    return HFConfig({**config.raw(), "architectures": names, "tie_word_embeddings": True})


def stored_dtype(config: HFConfig) -> str:
    """The dtype that config.json says the weights have; float32 where it says nothing."""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def device_facts() -> DeviceFacts:
    """The device to run on: a GPU where there is one and VLLM_PLATFORM does not say cpu."""
    if env.text("VLLM_PLATFORM") == "cpu" or (
        not Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidia0").exists()
    ):
        return cpu_facts()
    from vllm.platforms.cuda import cuda_facts

    return cuda_facts() or cpu_facts()


def make_executor(workers: "Workers") -> tuple[Executor, list[Resource]]:
    """The first executor, and what requests wait for beside rows and blocks."""
    return workers.make(), workers.resources()


class Workers:
    """Makes executors as the Plan says: in this process for one rank, else one process per rank.

    The first one is made at the start, others after sleep or with other weights. `words` are those of a compiler of
    grammars, none without a tokenizer; `processors` are logits processors of the user's own: classes or their names.
    """

    def __init__(
        self, plan: Plan, described: Described, words: Mapping[str, Any], processors: Sequence[Any] = ()
    ) -> None:
        self.plan, self.described, self._words = plan, described, words
        self.is_foreign = isinstance(described.decoder, Foreign)
        self.is_local = plan.worker.tp_size * plan.worker.pp_size == 1
        self._compiler = Compiler(**words) if words and self.is_local else None
        self.processors: tuple[Any, ...] = ()
        if processors:
            if not self.is_local:
                raise RefusedError("logits_processors run in this process only; use one device for them.")
            from vllm.sampling.custom import find_classes

            self.processors = tuple(find_classes(processors))

    def make(self, load: LoadPlan | None = None, given: Mapping[str, Any] | None = None) -> Executor:
        """An executor with the weights of `load` (default: the plan's), and `given` in place of some of them."""
        plan, described = self.plan, self.described
        load = load or plan.load
        if not self.is_local:
            from vllm.executor.processes import ProcessExecutor

            assert not given, "weights are given to workers of this process only"
            return ProcessExecutor(plan.worker, plan.kv, load, described.config.raw(), self._words)
        from vllm.executor.local import LocalExecutor
        from vllm.features.pooling.device import PoolingHead
        from vllm.features.structured_output.device import GrammarStage

        stages: list[Any] = [PoolingHead(), *([GrammarStage(self._compiler)] if self._compiler else [])]
        if self.processors:
            from vllm.sampling.custom import Custom

            stages.append(Custom(self.processors, config_view(plan, described), plan.worker.device))
        return LocalExecutor(described.decoder, described.weights, plan.worker, plan.kv, load, stages, given)

    def resources(self) -> list[Resource]:
        """What requests wait for beside rows and blocks."""
        return [GrammarCompiled(self._compiler)] if self._compiler else []
