"""Where the device tells the host the tokens it chooses, so that no copy and no mark stand between two steps.

    told[row, position of the token modulo 4] = token      written by `pick`; -1 until then, and again when it was read

Host and device reach the same memory. Steps in flight are fewer than places of a row, so none is written twice before
it is read, unless a row changes hands in between: who finds that fetches the tokens instead. Either way the places are
cleared when the tokens have come.
Does not know: plans, flights. Called by: ahead.
"""

import time

import numpy as np
import torch

from vllm.ops.rows import PLACES
from vllm.platforms.base import Platform

_PATIENCE = 1.0
"""Seconds without a token after which the device is asked whether it still works."""


class Board:
    """The memory, as the host sees it."""

    def __init__(self, told: torch.Tensor, platform: Platform, index: int) -> None:
        self._places, self._platform, self._index = told.view(-1).numpy(), platform, index

    def watch(self, rows: np.ndarray, lens: np.ndarray) -> "Watch":
        """The places where the tokens of `rows` at positions `lens` come."""
        return Watch(self, rows * PLACES + lens % PLACES)

    def clear(self, places: np.ndarray) -> None:
        """They were read."""
        self._places[places] = -1

    def read(self, places: np.ndarray) -> np.ndarray:
        """Their tokens, once all are there. RuntimeError where the device has ended its work without them."""
        until = 0.0
        while (tokens := self._places[places]).min() < 0:
            now = time.monotonic()
            until = until or now + _PATIENCE
            if now > until:
                self._platform.synchronize(self._index)  # why: raises what went wrong there
                if self._places[places].min() < 0:
                    raise RuntimeError("the device ended a step and told no token")
            time.sleep(0)
        return tokens


class Watch:
    """Tokens on their way."""

    __slots__ = ("_board", "_places")

    def __init__(self, board: Board, places: np.ndarray) -> None:
        self._board, self._places = board, places

    def wait(self) -> torch.Tensor:
        """The tokens, once they are there."""
        return torch.from_numpy(self._board.read(self._places).astype(np.int64))

    def clear(self) -> None:
        """Free the places: the tokens have come, this way or another."""
        self._board.clear(self._places)
