"""The table of ops: each op is a reference function that says what it means, and kernels that do it faster.

    @op(tol=Tol(f32=1e-5, bf16=2e-2), cases=CASES)
    def rms_norm(x_TE, weight_E, eps): ...            the reference; runs on any torch device

    @rms_norm.kernel("jit", when=on_cpu)              in ops/cpu/rms_norm.py: one kernel, nothing else to edit
    def rms_norm_jit(x_TE, weight_E, eps): ...

A kernel may carry helpers that belong to it alone (`pack` of a weight, `layout` of a cache); they travel with the
choice. `select` makes the choice once, from a Target and the names asked for; layers keep what they got, so a call
costs one Python call. Does not know: layers, requests. Called by: layers, sampling, planning (names), tests and benches
(CASES).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from vllm.util.log import get_logger

log = get_logger(__name__)
_OPS: dict[str, Op] = {}


@dataclass(frozen=True, slots=True)
class Tol:
    """Largest allowed error of a kernel, relative to the largest value of the reference, per dtype of the inputs."""

    f32: float = 1e-5
    bf16: float = 1e-2
    f16: float = 2e-3

    def of(self, dtype: torch.dtype) -> float:
        """The tolerance for inputs of `dtype`."""
        return {torch.float32: self.f32, torch.bfloat16: self.bf16, torch.float16: self.f16}[dtype]


@dataclass(frozen=True, slots=True)
class Target:
    """Where kernels will run: what their `when` may ask about."""

    device: str
    """`cpu`, `cuda`."""
    dtype: torch.dtype
    deterministic: bool = False
    quantization: str = "none"
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability, (0, 0) elsewhere."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation of an op. `helpers` are functions of its own that callers of this op know by name."""

    name: str
    run: Callable[..., Any]
    when: Callable[[Target], bool]
    rank: float
    helpers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Op:
    """An op: its meaning, how far kernels may stray from it, the shapes to try, and its kernels by name."""

    name: str
    tol: Tol
    cases: tuple[Any, ...]
    kernels: dict[str, Kernel]
    is_library: bool = False
    """The reference is little more than one call of torch's own kernels, so it is no loss on any device."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The reference."""
        return self.kernels["reference"].run(*args, **kwargs)

    def kernel(
        self, name: str, when: Callable[[Target], bool], rank: float = 1, **helpers: Callable[..., Any]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as an implementation. Of those whose `when` holds the highest `rank` is the default.

        Helpers not given are the reference's own.
        """

        def add(run: Callable[..., Any]) -> Callable[..., Any]:
            assert name not in self.kernels, f"{self.name} has two kernels named {name}"
            self.kernels[name] = Kernel(name, run, when, rank, {**self.kernels["reference"].helpers, **helpers})
            return run

        return add

    def choose(self, target: Target, wanted: str = "") -> Kernel:
        """The kernel asked for by name, or the best one. ValueError for a name that is not there or cannot run."""
        if wanted:
            if wanted not in self.kernels:
                raise ValueError(f"op {self.name} has no kernel {wanted!r}; it has {', '.join(self.kernels)}")
            if not self.kernels[wanted].when(target):
                raise ValueError(f"kernel {wanted!r} of op {self.name} does not run on {target}")
            return self.kernels[wanted]
        return max((k for k in self.kernels.values() if k.when(target)), key=lambda k: k.rank)


def op(
    tol: Tol | None = None, cases: Iterable[Any] = (), is_library: bool = False, **helpers: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Op]:
    """Make the decorated function the reference of a new op of its name."""

    def make(reference: Callable[..., Any]) -> Op:
        name = reference.__name__
        assert name not in _OPS, f"two ops are named {name}"
        first = Kernel("reference", reference, lambda target: True, 0, helpers)
        _OPS[name] = Op(name, tol or Tol(), tuple(cases), {"reference": first}, is_library)
        return _OPS[name]

    return make


class Kernels:
    """The kernels chosen for one model: `ops.rms_norm(x, w, eps)` runs one, `ops.chosen["rms_norm"]` describes it."""

    def __init__(self, chosen: Mapping[str, Kernel]) -> None:
        self.chosen = dict(chosen)
        for name, kernel in chosen.items():
            setattr(self, name, kernel.run)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # why: only reached for names that __init__ did not set
        raise AttributeError(f"no op is named {name!r}")

    def helper(self, name: str, what: str) -> Callable[..., Any]:
        """A helper of the chosen kernel of op `name`."""
        return self.chosen[name].helpers[what]

    def names(self) -> dict[str, str]:
        """op -> kernel, for the log and for `vllm plan --ops`."""
        return {name: kernel.name for name, kernel in sorted(self.chosen.items())}

    def missed(self, used: Iterable[str]) -> list[str]:
        """Ops of `used` for which the reference was chosen although it is slower than a kernel would be."""
        ops = all_ops()
        return [name for name in sorted(used) if self.chosen[name].name == "reference" and not ops[name].is_library]


def all_ops() -> dict[str, Op]:
    """Every op by name; imports the files that define them."""
    import vllm.ops as room

    for info in pkgutil.iter_modules(room.__path__):
        if not info.ispkg and info.name != "table":
            importlib.import_module(f"vllm.ops.{info.name}")
    return _OPS


def load_kernels(folder: str) -> list[str]:
    """Import every kernel file of `vllm/ops/<folder>/`. Returns why some could not be (a missing optional package)."""
    package, skipped = importlib.import_module(f"vllm.ops.{folder}"), []
    for info in pkgutil.iter_modules(package.__path__):
        try:
            importlib.import_module(f"vllm.ops.{folder}.{info.name}")
        except ImportError as error:
            skipped.append(f"{folder}/{info.name}: {error}")
    return skipped


def select(target: Target, wanted: Mapping[str, str] | None = None, folders: Iterable[str] = ()) -> Kernels:
    """Choose a kernel for every op: the one `wanted` names, else the best that can run on `target`.

    `folders` are the kernel folders of the platform. `wanted` {"*": "reference"} means references everywhere.
    Raises ValueError for unknown ops or kernels.
    """
    ops, wanted = all_ops(), dict(wanted or {})
    everywhere = wanted.pop("*", "")
    if everywhere != "reference":
        for folder in folders:
            for why in load_kernels(folder):
                log.info("kernels not available: %s", why)
    for name in wanted:
        if name not in ops:
            raise ValueError(f"kernels names an unknown op {name!r}; ops are {', '.join(sorted(ops))}")
    return Kernels({name: one.choose(target, wanted.get(name, everywhere)) for name, one in ops.items()})
