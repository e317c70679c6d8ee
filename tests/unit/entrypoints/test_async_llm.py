"""AsyncLLM over a fake engine: streams apart, errors apart, early leaving, death, end."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from vllm.entrypoints.async_llm import AsyncLLM
from vllm.errors import EngineDeadError, EngineGenerateError, ValidationError
from vllm.outputs import CompletionOutput, RequestOutput


class FakeEngine:
    """Each step gives every request one more letter; prompt says how many, or how to fail."""

    def __init__(self):
        self.model_config, self.vllm_config, self.tokenizer = SimpleNamespace(max_model_len=8), None, "tok"
        self.open, self.aborted, self.is_closed, self.threads = {}, [], False, set()

    def add_request(self, request_id, prompt, params, priority=0):
        self.threads.add(threading.get_ident())
        if prompt == "bad":
            raise ValidationError.of("prompt", prompt, "good")
        self.open[request_id] = [prompt, 0]

    def has_unfinished_requests(self):
        return bool(self.open)

    def step_apart(self):
        self.threads.add(threading.get_ident())
        outputs, failed = [], {}
        for request_id, state in list(self.open.items()):
            if state[0] == "die":
                raise RuntimeError("cable pulled")
            state[1] += 1
            if state[0] == "fail" and state[1] == 2:
                failed[request_id] = "no reason"
                del self.open[request_id]
                continue
            done = state[0] == state[1]
            one = CompletionOutput(0, "x" * state[1], [0] * state[1], finish_reason="length" if done else None)
            outputs.append(RequestOutput(request_id, None, None, None, [one], done))
            if done:
                del self.open[request_id]
        return outputs, failed

    def abort_request(self, request_id):
        self.aborted.append(request_id)
        self.open.pop(request_id, None)

    def reset_prefix_cache(self, *_):
        return not self.open

    def close(self):
        self.is_closed = True


@pytest.fixture
def engine():
    made = AsyncLLM(FakeEngine())
    yield made
    made.shutdown()
    assert made.engine.is_closed


async def texts(engine, prompt, name):
    return [output.outputs[0].text async for output in engine.generate(prompt, None, name)]


def test_streams_run_together_on_one_thread(engine):
    async def main():
        return await asyncio.gather(*(texts(engine, n, f"r{n}") for n in (1, 3, 20)))

    one, three, twenty = asyncio.run(main())
    assert one == ["x"] and three == ["x", "xx", "xxx"] and twenty[-1] == "x" * 20
    assert len(engine.engine.threads) == 1 and threading.get_ident() not in engine.engine.threads


def test_errors_reach_their_own_caller_only(engine):
    async def main():
        return await asyncio.gather(
            texts(engine, "bad", "a"), texts(engine, "fail", "b"), texts(engine, 5, "c"), return_exceptions=True
        )

    bad, failed, good = asyncio.run(main())
    assert isinstance(bad, ValidationError) and isinstance(failed, EngineGenerateError) and len(good) == 5
    assert "no reason" in str(failed) and engine.is_running and not engine.errored


def test_leaving_early_aborts(engine):
    async def main():
        stream = engine.generate(10**9, None, "long")
        async for _ in stream:
            break
        await stream.aclose()
        while "long" not in engine.engine.aborted:
            await asyncio.sleep(0.001)
        assert await engine.reset_prefix_cache() is True

    asyncio.run(main())


def test_abort_ends_the_generator(engine):
    async def main():
        task = asyncio.create_task(texts(engine, 10**9, "long"))
        await asyncio.sleep(0.01)
        await engine.abort("long")
        await engine.abort(["nobody"])
        with pytest.raises(EngineGenerateError, match="aborted"):
            await task

    asyncio.run(main())


def test_death_is_told_to_everyone(engine):
    async def main():
        good = asyncio.create_task(texts(engine, 10**9, "good"))
        await asyncio.sleep(0.01)
        for task in (texts(engine, "die", "die"), good):
            with pytest.raises(EngineDeadError, match="cable pulled"):
                await task
        with pytest.raises(EngineDeadError):
            await engine.check_health()
        with pytest.raises(EngineDeadError):
            await texts(engine, 1, "late")

    asyncio.run(main())
    assert engine.errored and engine.is_stopped


def test_shutdown_ends_open_streams(engine):
    async def main():
        task = asyncio.create_task(texts(engine, 10**9, "long"))
        await asyncio.sleep(0.01)
        assert await engine.get_tokenizer() == "tok" and (await engine.get_model_config()).max_model_len == 8
        await asyncio.to_thread(engine.shutdown)
        with pytest.raises(EngineDeadError, match="shut down"):
            await task

    asyncio.run(main())


def test_its_steps_keep_to_a_time(monkeypatch):
    """Tokens are read as they come, here and from a server's engine; offline nobody waits for one."""
    from vllm.config.args import EngineArgs
    from vllm.entrypoints import engine_main, offline

    asked = []

    def assemble(args, is_watched=False):
        asked.append(is_watched)
        raise KeyError("enough")

    monkeypatch.setattr(offline, "assemble", assemble)
    monkeypatch.setattr(
        "vllm.assembly.make_plan", lambda args, weights=True, is_watched=False: assemble(args, is_watched)
    )
    for make in (AsyncLLM.from_engine_args, offline.LLMEngine.from_engine_args):
        with pytest.raises(KeyError):
            make(EngineArgs())
    with pytest.raises(KeyError):
        engine_main.build({})
    assert asked == [True, False, True]
