"""EngineArgs: what the user said, in vLLM's words, sorted into our sections.

    EngineArgs(model=..., max_model_len=4096, swap_space=4)
        ├─ ours      checked, in its section: .model_args .cache_args .scheduler_args .parallel_args .observe_args
        ├─ vLLM's    ignored with one log line, or refused with the reason (compat.py)
        └─ unknown   TypeError naming the nearest known word

Every knob is also a flat attribute (`args.max_model_len`), and `dataclasses.fields/asdict/replace` work.
Does not know: models, devices, or what "auto" will become. Invariant: frozen. Callers: entrypoints, assembly, planning.
"""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vllm.config.cache import CacheArgs
from vllm.config.compat import OTHERS, judge
from vllm.config.model import ModelArgs
from vllm.config.objects import ModelConfig, VllmConfig
from vllm.config.observe import ObserveArgs
from vllm.config.parallel import ParallelArgs
from vllm.config.scheduler import SchedulerArgs
from vllm.errors import nearest
from vllm.util import env
from vllm.util.log import get_logger, once

SECTIONS: dict[str, type] = {
    "model_args": ModelArgs,
    "cache_args": CacheArgs,
    "scheduler_args": SchedulerArgs,
    "parallel_args": ParallelArgs,
    "observe_args": ObserveArgs,
}


@dataclass(frozen=True, init=False)
class EngineArgs(ObserveArgs, ParallelArgs, SchedulerArgs, CacheArgs, ModelArgs):
    """All knobs of an engine.

    Raises ValidationError or RefusedError (both ValueError) for a value, TypeError for an unknown word.
    """

    def __init__(self, model: str | None = None, **given: Any):
        others = {name: value for name, value in given.items() if name in OTHERS}
        unknown = [name for name in given if name not in _OURS and name not in OTHERS]
        if unknown:
            name = unknown[0]
            raise TypeError(f"unknown argument {name!r}.{nearest(name, [*_OURS, *OTHERS])}")
        ignored = judge(others)
        for sentence in ([f"Ignored: {'; '.join(ignored)}."] if ignored else []) + env.unknown():
            once(get_logger(__name__), logging.WARNING, sentence)
        ours = {name: value for name, value in given.items() if name in _OURS} | {"model": model}
        if ours.get("deterministic") is None:
            ours["deterministic"] = env.flag("VLLM_BATCH_INVARIANT")
        for name, section in SECTIONS.items():
            mine = section(**{f.name: ours[f.name] for f in fields(section) if f.name in ours})
            object.__setattr__(self, f"_{name}", mine)
            for f in fields(section):
                object.__setattr__(self, f.name, getattr(mine, f.name))

    def __getattr__(self, name: str) -> Any:
        """A word of vLLM's that is not ours: it was given nothing that asks for anything, or was ignored."""
        if name in OTHERS:
            return next(iter(OTHERS[name].harmless), None)
        raise AttributeError(f"EngineArgs has no {name!r}.{nearest(name, [*_OURS, *OTHERS])}")

    def create_engine_config(self, *_: Any, **__: Any) -> VllmConfig:
        """What `from_vllm_config` takes. The plan itself is made with the engine: see its `vllm_config`."""
        model = ModelConfig(model=self.model, tokenizer=self.tokenizer or self.model, max_model_len=self.max_model_len)
        return VllmConfig(engine_args=self, model_config=model)

    def _section(self, name: str) -> Any:
        return self.__dict__[f"_{name}"]

    @property
    def model_args(self) -> ModelArgs:
        return self._section("model_args")  # type: ignore[no-any-return]

    @property
    def cache_args(self) -> CacheArgs:
        return self._section("cache_args")  # type: ignore[no-any-return]

    @property
    def scheduler_args(self) -> SchedulerArgs:
        return self._section("scheduler_args")  # type: ignore[no-any-return]

    @property
    def parallel_args(self) -> ParallelArgs:
        return self._section("parallel_args")  # type: ignore[no-any-return]

    @property
    def observe_args(self) -> ObserveArgs:
        return self._section("observe_args")  # type: ignore[no-any-return]

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """One group of flags per section, made from the knobs."""
        from vllm.config.cli import add_others, add_section

        for section in SECTIONS.values():
            add_section(parser, section)
        add_others(parser)
        return parser

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> EngineArgs:
        """From a parsed command line; attributes that are not knobs are left alone."""
        return cls.from_mapping({name: value for name, value in vars(args).items() if name in _OURS or name in OTHERS})

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> EngineArgs:
        """From a dict of knobs."""
        return cls(**dict(given))


_OURS = tuple(f.name for f in fields(EngineArgs))
EngineArgs.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)]
    + [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default)
        for f in fields(EngineArgs)
        if f.name != "model"
    ]
)
AsyncEngineArgs = EngineArgs
