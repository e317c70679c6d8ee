"""Tokens that the device tells the host by writing into its memory."""

import threading
import time

import numpy as np
import pytest

from vllm.platforms.base import platform_of
from vllm.worker import board as room
from vllm.worker.board import Board


def make() -> tuple[Board, np.ndarray]:
    told = platform_of("cpu").shared((5, 4), -1)
    assert told is not None
    return Board(told, platform_of("cpu"), 0), told.numpy()


def test_waits_until_all_tokens_are_there():
    board, told = make()
    watch = board.watch(np.array([3, 0]), np.array([9, 4]))

    def tell() -> None:
        told[3, 1] = 77
        time.sleep(0.02)
        told[0, 0] = 5

    device = threading.Thread(target=tell)
    device.start()
    assert watch.wait().tolist() == [77, 5]
    device.join()
    watch.clear()
    assert (told == -1).all(), "places are free again"


def test_a_device_that_tells_nothing_is_found_out(monkeypatch):
    monkeypatch.setattr(room, "_PATIENCE", 0.01)
    board, told = make()
    told[1, 2] = 8
    with pytest.raises(RuntimeError, match="told no token"):
        board.watch(np.array([1, 2]), np.array([2, 2])).wait()
