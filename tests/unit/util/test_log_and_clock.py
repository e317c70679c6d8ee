import logging

import pytest

from vllm.util import clock, log


def test_once_says_it_once(caplog):
    logger = logging.getLogger("test.once")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            log.once(logger, logging.INFO, "said once by this test")
    assert [record.message for record in caplog.records] == ["said once by this test"]


def test_the_root_logger_is_left_alone():
    before = list(logging.getLogger().handlers), logging.getLogger().level
    log.get_logger("vllm.test")
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_a_wrong_level_is_named(monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "loud")
    with pytest.raises(ValueError, match="VLLM_LOGGING_LEVEL='LOUD'"):
        log._level()


def test_manual_clock():
    manual = clock.ManualClock(wall=100.0)
    manual.advance(2.5)
    manual.jump(-50)
    assert (manual.monotonic(), manual.wall()) == (2.5, 52.5)
    assert clock.SYSTEM.monotonic() <= clock.SYSTEM.monotonic()
