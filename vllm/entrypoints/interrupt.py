"""Ctrl-C between steps.

For: letting an interrupted call end with the engine's books in order, so that the next call works. Python raises
KeyboardInterrupt between any two instructions; in the middle of a step that would lose track of what is in flight.
Does not know: what a step is. Called by: the offline loop.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """Inside, the first Ctrl-C waits until the yielded function is called, which raises it; a second comes at once.

    Does nothing off the main thread, or where the program has set a handler of its own.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    waiting = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            raise KeyboardInterrupt
        waiting = True

    def pause() -> None:
        if waiting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield pause
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
