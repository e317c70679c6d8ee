"""Weights that are made when they are taken, a few of them ahead of the one that is asked for.

    build takes "layers.0.mixer.qkv.weight" ─▶ it is there, or being read ─▶ packed ─▶ the whole one is given back
                                                the next two are read meanwhile

Does not know files. Invariant: beside what was taken at most `_AHEAD` + 1 tensors exist. Called by: loader.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from vllm.platforms.pages import give_back

_AHEAD = 2
"""Tensors read before they are asked for. planning/host.py counts their bytes."""


class OneByOne(dict[str, torch.Tensor]):
    """A dict of tensors for those who only ask `in`, and `pop`: the others are not there yet."""

    def __init__(self, names: Iterable[str], make: Callable[[str], torch.Tensor]) -> None:
        nothing = torch.empty(0)
        super().__init__(dict.fromkeys(names, nothing))
        self._make, self._coming = make, dict[str, Future[torch.Tensor]]()
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="load")

    def pop(self, name: str, *default: Any) -> Any:
        """The tensor, made now if it was not made ahead; it is not kept here."""
        if name not in self:
            return super().pop(name, *default)
        give_back()  # what the one before was packed with
        coming = self._coming.pop(name, None)
        super().pop(name)
        made = coming.result() if coming is not None else self._make(name)
        for following in self:
            if len(self._coming) >= _AHEAD:
                break
            if following not in self._coming:
                self._coming[following] = self._pool.submit(self._make, following)
        if not self:
            self._pool.shutdown(wait=False)
        return made
