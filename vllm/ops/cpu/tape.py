"""Record the calls of a step once, then run them as one: no Python between kernels, no search for memory.

    recording    function ──▶ kernel call ──▶ list      other torch operations ──▶ thunk, its result copied into place
    replay       walk(list) ─▶ thunk ─▶ walk(list) ─▶ ..

What a recorded step allocates comes from a pool that all recordings of one `Recorder` share, since only one of them
runs at a time; so a result holds until the next run. A step that looks at values on its way (`.item()`, a truth value,
sizes that depend on data) cannot be recorded and says so. Does not know: models, rows.
Called by: the attention kernel, which hands `Recorder` to the worker.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable
from ctypes import c_float
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vllm.ops.cpu import jit

_LINE = 64
_CHUNK = 4 << 20
_LOOKS = {"item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__"}
_DEPENDS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_EMPTY = {"aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided"}


class CannotRecord(RuntimeError):
    """The step depends on values that only its run knows."""


class Pool:
    """Memory that grows while something is recorded and is used again from one recording to the next."""

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._free: list[tuple[int, int, int]] = []
        """(chunk, start, end), sorted."""

    def take(self, nbytes: int) -> np.ndarray:
        """Bytes that come back when nobody holds the array any more."""
        size = max(_LINE, -(-nbytes // _LINE) * _LINE)
        place = next((i for i, (_, start, end) in enumerate(self._free) if end - start >= size), None)
        if place is None:
            whole = np.empty(max(size, _CHUNK) + _LINE, np.uint8)
            skip = -whole.ctypes.data % _LINE
            self._chunks.append(whole[skip : skip + max(size, _CHUNK)])
            self._free.append((len(self._chunks) - 1, 0, max(size, _CHUNK)))
            place = len(self._free) - 1
        chunk, start, end = self._free.pop(place)
        if end - start > size:
            self._free.insert(place, (chunk, start + size, end))
        taken = self._chunks[chunk][start : start + nbytes]
        weakref.finalize(taken, self._give, chunk, start, start + size).atexit = False
        return taken

    def _give(self, chunk: int, start: int, end: int) -> None:
        joined: list[tuple[int, int, int]] = []
        for c, a, z in sorted([*self._free, (chunk, start, end)]):
            if joined and joined[-1][0] == c and joined[-1][2] == a:
                joined[-1] = (c, joined[-1][1], z)
            else:
                joined.append((c, a, z))
        self._free = joined

    def again(self, x: torch.Tensor) -> torch.Tensor:
        """The same memory where it is the pool's, free to be used by other recordings."""
        for chunk in self._chunks:
            start = x.data_ptr() - chunk.ctypes.data
            if 0 <= start < chunk.nbytes:
                flat = torch.from_numpy(chunk[start : start + x.untyped_storage().nbytes()]).view(x.dtype)
                return flat.as_strided(x.shape, x.stride())
        return x


class Tape:
    """A recorded step."""

    def __init__(self, parts: list[np.ndarray | Callable[[], None]], out: torch.Tensor, held: list[Any]) -> None:
        self._walk, self._out, self._held = jit.walker(), out, held
        self._lists = parts
        self._parts: list[tuple[int, int] | Callable[[], None]] = [
            (p.ctypes.data, p.ctypes.data + p.nbytes) if isinstance(p, np.ndarray) else p for p in parts
        ]

    def run(self) -> torch.Tensor:
        """Do the step again, on what its inputs hold now. The result holds until the pool's next run."""
        threads = jit.crew()
        for part in self._parts:
            if isinstance(part, tuple):
                self._walk(*part, threads)
            else:
                part()
        return self._out


class Recorder:
    """Makes tapes that share memory: run one of them at a time."""

    def __init__(self) -> None:
        self._pool = Pool()

    def record(self, step: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> tuple[torch.Tensor, Tape]:
        """(result, tape) of a step; all but `inputs` is the same in every run. Raises CannotRecord."""
        with jit.LISTENING:
            watch = _Watch(self._pool, inputs)
            jit.listening, jit.listener = threading.get_ident(), watch.call
            try:
                with _Looks(), watch:
                    out = step()
            finally:
                jit.listener = None
        watch.close()
        out = self._pool.again(out)
        return out, Tape(watch.parts, out, watch.held)


class _Looks(TorchFunctionMode):
    """Refuses what turns values into Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _LOOKS:
            raise CannotRecord(f"the step looks at values ({func.__name__})")
        return func(*args, **(kwargs or {}))


class _Watch(TorchDispatchMode):
    """Writes down kernel calls and torch operations in their order."""

    def __init__(self, pool: Pool, inputs: list[torch.Tensor]) -> None:
        super().__init__()
        self._pool, self._thread = pool, threading.get_ident()
        self._changing = {x.untyped_storage().data_ptr() for x in inputs}
        """Memory whose contents differ from run to run."""
        self._words: list[int] = []
        self.parts: list[np.ndarray | Callable[[], None]] = []
        self.held: list[Any] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # why: to be skipped by a compiler that is not there would import it, for two seconds
        return False

    def call(self, body: int, types: list[Any], args: tuple[Any, ...], alone: bool) -> bool:
        """A kernel runs, now as well."""
        if threading.get_ident() == self._thread:
            self._words += [body, len(args), int(alone)]
            self._words += [_bits(t, x) for t, x in zip(types, args, strict=True)]
        return False

    def close(self) -> None:
        """End the list of kernels that is being written."""
        if self._words:
            self.parts.append(np.array(self._words, np.int64))
            self._words = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name
        if _looks(func, name, args):
            raise CannotRecord(f"the step looks at values ({name})")
        if name in _EMPTY:
            return self._empty(func(*args, **kwargs))
        out = func(*args, **kwargs)
        before, after = _memory((args, kwargs)), _memory(out)
        if func._schema.is_mutable or (before & self._changing and not after <= before):
            self.close()
            self.parts.append(_thunk(func, args, kwargs, out))
            self._changing |= after
        elif name == "aten::lift_fresh" or not after <= before:
            self.held.append(out)  # why: made of what never changes, so it is made once, and kernels know its address
        return out

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        if like.device.type == "cpu" and like.is_contiguous() and like.numel():
            room = torch.from_numpy(self._pool.take(like.numel() * like.element_size()))
            like = room.view(like.dtype).view(like.shape)
        else:
            self.held.append(like)
        self._changing |= _memory(like)
        return like


def _looks(func: Any, name: str, args: Any) -> bool:
    """Does the operation's result, or its size, depend on values in a way that a replay cannot follow?"""
    if name == "aten::index":  # why: only a mask gives it a size that depends on data
        return any(t.dtype in (torch.bool, torch.uint8) for t in tree_leaves(args[1]) if isinstance(t, torch.Tensor))
    return name in ("aten::item", "aten::is_nonzero") or not _DEPENDS.isdisjoint(func.tags)


def _memory(x: Any) -> set[int]:
    """Where the tensors of a structure are."""
    return {t.untyped_storage().data_ptr() for t in tree_leaves(x) if isinstance(t, torch.Tensor)}


def _thunk(func: Any, args: Any, kwargs: Any, out: Any) -> Callable[[], None]:
    """Do a torch operation again, its results where they were."""
    if func._schema.is_mutable:
        return lambda: func(*args, **kwargs)
    if isinstance(out, torch.Tensor):
        return lambda: out.copy_(func(*args, **kwargs))

    def again() -> None:
        for old, new in zip(out, func(*args, **kwargs), strict=True):
            old.copy_(new)

    return again


def _bits(kind: Any, x: Any) -> int:
    """An argument as the word in a frame."""
    if kind is c_float:
        return int(struct.unpack("<i", struct.pack("<f", x))[0])
    return int(x)
