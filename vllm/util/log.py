"""Logging: one handler on the `vllm` logger, one line a message, level from VLLM_LOGGING_LEVEL.

For: what an operator should read. Does not know: who logs. Invariant: the root logger and other libraries'
loggers are left alone, and a host program that has configured logging itself keeps its own handlers.
Called by: everybody.
"""

import logging
import sys

from vllm.util import env

_FORMAT = "%(levelname)s %(asctime)s [%(name)s] %(message)s"
_said: set[tuple[str, str]] = set()


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the sys.stderr of the moment, so that redirection and test capture work."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def get_logger(name: str) -> logging.Logger:
    """The logger of a room: `log = get_logger(__name__)`. The first call puts our handler in place."""
    top = logging.getLogger("vllm")
    if not top.handlers:
        top.setLevel(_level())
        if not logging.getLogger().handlers:
            handler = _Stderr()
            handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%m-%d %H:%M:%S"))
            top.addHandler(handler)
            top.propagate = False
    return logging.getLogger(name)


def set_level(word: str) -> None:
    """The level of all our loggers, in place of VLLM_LOGGING_LEVEL."""
    get_logger("vllm").setLevel(logging.getLevelNamesMapping()[word.upper()])


def once(logger: logging.Logger, level: int, message: str) -> None:
    """Say `message` at most once in this process."""
    key = (logger.name, message)
    if key not in _said:
        _said.add(key)
        logger.log(level, message)


def _level() -> int:
    word = (env.text("VLLM_LOGGING_LEVEL") or "INFO").upper()
    levels = logging.getLevelNamesMapping()
    if word not in levels:
        raise ValueError(f"VLLM_LOGGING_LEVEL={word!r} is not one of {', '.join(levels)}")
    return levels[word]
