import pytest

from vllm.util import env


def test_undeclared_names_cannot_be_read():
    with pytest.raises(AssertionError, match="not declared"):
        env.text("VLLM_NONSENSE")


@pytest.mark.parametrize(("word", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("", False)])
def test_flag(monkeypatch, word, value):
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", word)
    assert env.flag("VLLM_USE_MODELSCOPE") is value


def test_flag_refuses_other_words(monkeypatch):
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "maybe")
    with pytest.raises(ValueError, match="VLLM_USE_MODELSCOPE='maybe'"):
        env.flag("VLLM_USE_MODELSCOPE")


def test_number(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert env.number("VLLM_CPU_KVCACHE_SPACE") is None
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1.5")
    assert env.number("VLLM_CPU_KVCACHE_SPACE") == 1.5
    for bad in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", bad)
        with pytest.raises(ValueError, match="number >= 0"):
            env.number("VLLM_CPU_KVCACHE_SPACE")


def test_unknown_variables_are_named(monkeypatch):
    monkeypatch.setenv("VLLM_LOGING_LEVEL", "DEBUG")
    assert env.unknown() == ["VLLM_LOGING_LEVEL is set but unknown here and ignored; did you mean VLLM_LOGGING_LEVEL?"]


def test_set_default_keeps_the_users_value(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    env.set_default("OMP_NUM_THREADS", "1")
    assert env.text("OMP_NUM_THREADS") == "3"


def test_for_child_leaves_ours_alone(monkeypatch):
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    assert env.for_child(VLLM_CACHE_ROOT="x")["VLLM_CACHE_ROOT"] == "x"
    assert env.text("VLLM_CACHE_ROOT") is None
