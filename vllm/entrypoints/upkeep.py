"""What can be done to an engine between requests: sleep, new weights, calls into its worker.

    awake ── sleep ──▶ no executor, no cache ── wake_up of both tags ──▶ stale ── before the next step ──▶ awake
      └── load_weights, reload_weights ──▶ stale ──────────────────────────────────────┘

An executor is never changed: it is let go of and another is made, from the folder and whatever weights were given
since. So weights are read and laid out again (as long as a start, less the planning), sequences that run are computed
again, and nothing of the old state can be left. Does not know: steps, devices. Called by: offline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vllm.errors import EngineError, RefusedError, ValidationError

if TYPE_CHECKING:
    from vllm.assembly import Assembled, Workers
    from vllm.engine.core import Engine
    from vllm.planning.plan import Plan

TAGS = ("weights", "kv_cache")
_ASLEEP = "The engine sleeps; call wake_up() first."
_WORKERS = "the model runs in {} workers, which take no calls; use one device (tensor_parallel_size=1)."


@dataclass(slots=True)
class Parts:
    """What upkeep needs of an engine, where there is no more of it (a server's)."""

    engine: Engine
    workers: Workers
    plan: Plan
    vllm_config: Any
    worker_extension: str


class Upkeep:
    """Keeps what the next executor is made of."""

    def __init__(self, parts: Assembled | Parts) -> None:
        self._parts, self._load = parts, parts.plan.load
        self._given: dict[str, Any] = {}
        """Weights that stand in for the folder's, on the host."""
        self._asleep: set[str] = set()
        self._is_stale = False

    @property
    def is_sleeping(self) -> bool:
        """Whether it must be woken before it can serve."""
        return bool(self._asleep)

    def check_awake(self) -> None:
        """Raises RefusedError while it sleeps."""
        if self._asleep:
            raise RefusedError(_ASLEEP)

    def make_ready(self) -> None:
        """Make the executor that is due. Before every step."""
        if self._asleep:
            raise EngineError(_ASLEEP)
        if self._is_stale:
            self._let_go()
            self._parts.engine.use(self._parts.workers.make(self._load, self._given))
            self._is_stale = False

    def sleep(self, level: int = 1) -> None:
        """Give back the memory of weights and cache. Levels 1 and 2 are one: weights are read again on waking."""
        if level not in (1, 2):
            raise ValidationError.of("level", level, "1 or 2 (weights and cache are given back in both)")
        self._let_go()
        self._is_stale = True
        self._asleep = set(TAGS)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Take back `weights`, `kv_cache`, or both (None). The memory is taken when both are asked for."""
        wanted = set(TAGS if tags is None else tags)
        if not wanted <= set(TAGS):
            raise ValidationError.of("tags", sorted(wanted - set(TAGS)), f"of {', '.join(TAGS)}")
        was_asleep, self._asleep = bool(self._asleep), self._asleep - wanted
        if was_asleep and not self._asleep and not self._given:  # why: else more weights may be on their way
            self.make_ready()

    def load_weights(self, weights: Iterable[tuple[str, Any]] | Mapping[str, Any]) -> set[str]:
        """Tensors by their names in a checkpoint of this model take the place of its own before the next step.

        Those not named stay as they are. Returns the names. Raises ModelLoadError for a name that is not known.
        """
        from vllm.loading.loader import check_names

        workers = self._parts.workers
        self._check_local("load_weights")
        if self._load.stored is not None:
            raise RefusedError("load_weights: the checkpoint is quantized, and its layouts take no single tensors.")
        if workers.is_foreign:
            raise RefusedError("load_weights: a model of the transformers fallback is loaded from its folder only.")
        items = dict(weights.items() if isinstance(weights, Mapping) else weights)
        check_names(workers.described.decoder, workers.described.weights, items)
        # why: a copy, for a trainer goes on with its own; on the host, where it waits for the next executor
        self._given.update({name: tensor.detach().to("cpu", copy=True) for name, tensor in items.items()})
        self._is_stale = True
        return set(items)

    def reload_weights(self, weights_path: str | None = None) -> None:
        """Read the folder again (or another of the same shapes); weights given one by one are forgotten."""
        if weights_path is not None:
            self._load = replace(self._load, path=str(weights_path))
        self._given.clear()
        self._is_stale = True
        if not self._asleep:
            self.make_ready()

    def update_config(self, changes: Mapping[str, Any]) -> None:
        """Change how weights are loaded next: {"load_config": {"load_format": "auto"}}."""
        for section, values in changes.items():
            unknown = set(values) - {"load_format"} if section == "load_config" else {section}
            if unknown:
                raise RefusedError(f"update_config: {sorted(unknown)[0]} is fixed at the start; make a new LLM.")
            self._load = replace(self._load, load_format=values.get("load_format", self._load.load_format))

    def _let_go(self) -> None:
        self._parts.engine.vacate()
        self._parts.engine.release()

    def _check_local(self, what: str) -> None:
        if not self._parts.workers.is_local:
            worker = self._parts.plan.worker
            raise RefusedError(f"{what}: {_WORKERS.format(worker.tp_size * worker.pp_size)}")

    # -- calls into the worker ---------------------------------------------------------------------------------------

    def worker(self) -> Worker:
        """The one worker, for users' code. Raises RefusedError where there are several."""
        self._check_local("calls into the model")
        return _extended(self._parts.worker_extension)(self, self._parts)

    def rpc(
        self, method: str | Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """What every worker answers to `method`: a method of the worker, or a function that takes it first."""
        words = dict(kwargs or {})
        if isinstance(method, str) and method in ("reload_weights", "update_config"):
            return [getattr(self, method)(*args, **words)] * self._num_ranks()
        worker = self.worker()
        if callable(method):
            return [method(worker, *args, **words)]
        found = getattr(worker, method)
        if not callable(found):
            raise ValidationError.of("method", method, "a method of the worker")
        return [found(*args, **words)]

    def _num_ranks(self) -> int:
        return self._parts.plan.worker.tp_size * self._parts.plan.worker.pp_size


class LiveModel:
    """The running network, with vLLM's way to give it weights."""

    def __init__(self, upkeep: Upkeep, parts: Assembled | Parts) -> None:
        self._upkeep, self._parts = upkeep, parts

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        """See Upkeep.load_weights."""
        return self._upkeep.load_weights(weights)

    @property
    def network(self) -> Any:
        """The object that computes a step: vllm.layers.build.Model."""
        self._upkeep.make_ready()
        return self._parts.engine.executor.runner.model

    def __call__(self, *args: Any) -> Any:
        return self.network(*args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        network = self.network
        if name not in dir(network):
            raise AttributeError(
                f"the running model has no {name!r}: it is no torch.nn.Module, and its weights are laid out for its "
                f"kernels. load_weights takes new ones; read the checkpoint for old ones."
            )
        return getattr(network, name)


class Worker:
    """What users' code finds where vLLM has a worker: device, rank, model_runner.model, and the calls below."""

    def __init__(self, upkeep: Upkeep, parts: Assembled | Parts) -> None:
        from types import SimpleNamespace

        self._upkeep = upkeep
        self.rank = self.local_rank = 0
        self.vllm_config = parts.vllm_config
        self.model_config = self.vllm_config.model_config
        self.model_runner = SimpleNamespace(
            model=LiveModel(upkeep, parts), device=self.device, vllm_config=self.vllm_config
        )
        self.worker = self

    @property
    def device(self) -> Any:
        """The torch device of the model."""
        import torch

        return torch.device(self.vllm_config.device_config.device)

    def get_model(self) -> LiveModel:
        """The running network."""
        model: LiveModel = self.model_runner.model
        return model

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        """See Upkeep.load_weights."""
        return self._upkeep.load_weights(weights)

    def apply_model(self, function: Callable[[Any], Any]) -> Any:
        """What `function` makes of the network."""
        return function(self.get_model())

    def check_health(self) -> None:
        """It is in this process, so it lives."""

    def sleep(self, level: int = 1) -> None:
        """See Upkeep.sleep."""
        self._upkeep.sleep(level)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """See Upkeep.wake_up."""
        self._upkeep.wake_up(tags)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"the worker has no {name!r}; it has reload_weights, update_config, load_weights, apply_model, get_model, "
            f"sleep, wake_up, check_health, and what worker_extension_cls adds"
        )


def _extended(extension: str) -> type[Worker]:
    """The worker's class with the methods of the user's own beside it."""
    if not extension:
        return Worker
    from importlib import import_module

    path, _, name = extension.rpartition(".")
    try:
        added = getattr(import_module(path), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValidationError.of("worker_extension_cls", extension, f"package.module.Class ({error})") from None
    for one in vars(added):
        if not one.startswith("__") and one in vars(Worker):
            raise ValidationError(f"worker_extension_cls: {extension}.{one} would hide the worker's own {one}.")
    return type(f"Worker{name}", (Worker, added), {})
