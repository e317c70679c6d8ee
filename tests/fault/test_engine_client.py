"""What the front survives: engines that are killed, that kill themselves, that never start, that hang."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import engine_program
from tests.fakes.engine_program import ASLEEP, BUSY, CRASH, KV, LATER, MAX_LEN, RAISE
from tests.fakes.fingerprint import reference
from vllm.engine import child
from vllm.engine import client as client_module
from vllm.engine.client import EngineClient
from vllm.errors import EngineDeadError, ValidationError
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch):
    monkeypatch.setattr(child, "PROGRAM", engine_program.__name__)


def request(name: str, first: int = 1, max_tokens: int = 60, n: int = 1) -> Request:
    params = SamplingParams(n=n, max_tokens=max_tokens)
    prompt = (first, *random.Random(name).choices(range(40), k=9))
    seeds = tuple(range(n))
    return Request(name, (TokenSpan(prompt),), params, seeds, min(MAX_LEN, 10 + max_tokens), frozenset())


class Caller:
    """Collects what a request gets."""

    def __init__(self, client: EngineClient, asked: Request) -> None:
        self.asked = asked
        self.tokens: dict[int, list[int]] = {i: [] for i in range(asked.sampling.n)}
        self.open = set(self.tokens)
        self.error = ""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client.add(asked, self.sink)

    def sink(self, update: SequenceUpdate) -> None:
        assert update.index in self.open, "news of a sequence that has ended"
        self.tokens[update.index] += update.token_ids
        if update.finish_reason is not None:
            self.error = self.error or update.error or ""
            self.open.discard(update.index)
            if not self.open:
                self.done.set_result(None)

    @property
    def num_tokens(self) -> int:
        """Tokens of all siblings so far."""
        return sum(map(len, self.tokens.values()))

    def check(self) -> None:
        """Nothing lost, nothing doubled, nothing else."""
        assert not self.error
        assert self.tokens == {i: reference(self.asked, i, KV) for i in self.tokens}


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen in {seconds} s"
        await asyncio.sleep(0.01)


async def all_done(callers: list[Caller], seconds: float = 60) -> None:
    await asyncio.wait_for(asyncio.gather(*(caller.done for caller in callers)), seconds)


def run_kills(num_kills: int) -> None:
    """Kill the engine again and again: every second time in the middle of an answer, else also while it starts.

    Prints how long it took until the engine served again.
    """
    waits: list[float] = []

    async def scenario() -> None:
        r = random.Random(5)
        client = EngineClient({})
        await client.start()
        callers: list[Caller] = []

        def num_tokens() -> int:
            return sum(caller.num_tokens for caller in callers)

        for i in range(num_kills):
            callers += [
                Caller(client, request(f"{i}-{k}", max_tokens=r.randint(1, 90), n=r.choice([1, 1, 3])))
                for k in range(4)
            ]
            if i % 2:
                # why: a start may take seconds; after twenty kills before one it is given up, and a request that was
                # alone with three engines that died before it gave a token is taken for the cause
                before = num_tokens()
                await until(lambda before=before: num_tokens() > before, 60)
            await asyncio.sleep(r.choice([0.0, 0.05, 0.3, 0.6]))
            pid = client.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed, told = time.monotonic(), client.num_restarts
            await until(lambda told=told, pid=pid: client.num_restarts > told and client.pid != pid, 60)
            assert not client.dead
            if i % 2 == 0 and i + 1 < num_kills:
                await until(lambda: client.is_serving, 60)
                waits.append(time.monotonic() - killed)
        await all_done(callers)
        for caller in callers:
            caller.check()
        waits.sort()
        print(
            f"\n{num_kills} kills, {len(callers)} requests, no token lost or doubled; "
            f"serving again after {waits[len(waits) // 2]:.1f} s (median), {waits[-1]:.1f} s (most)"
        )
        assert client.num_restarts == num_kills
        assert client.num_open == 0
        await client.stop()

    asyncio.run(scenario())


def test_kills_lose_and_double_nothing():
    run_kills(8)


@pytest.mark.slow
def test_a_hundred_kills_lose_and_double_nothing():
    run_kills(100)


@pytest.mark.parametrize(("first", "cause"), [(CRASH, "killed by signal 11"), (RAISE, "cable was pulled")])
def test_a_request_that_kills_is_failed_alone_with_its_cause(first, cause):
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        good = [Caller(client, request(f"good-{i}")) for i in range(3)]
        bad = Caller(client, request("bad", first))
        good += [Caller(client, request(f"more-{i}", n=2)) for i in range(3)]
        await all_done([bad, *good])
        assert cause in bad.error
        for caller in good:
            caller.check()
        assert client.num_restarts <= 4
        after = Caller(client, request("after"))
        await all_done([after])
        after.check()
        await client.stop()

    asyncio.run(scenario())


def test_a_request_that_kills_in_its_middle_ends_too():
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        good, bad = Caller(client, request("good")), Caller(client, request("bad", LATER))
        await all_done([bad, good])
        good.check()
        assert "died on this request" in bad.error
        assert bad.tokens[0] == reference(bad.asked, 0, KV)[: len(bad.tokens[0])]
        await client.stop()

    asyncio.run(scenario())


def test_an_engine_that_hangs_is_replaced(monkeypatch):
    monkeypatch.setattr(child, "SILENCE_S", 2.5)

    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        assert client.pid is not None
        os.kill(client.pid, signal.SIGSTOP)
        caller = Caller(client, request("a", max_tokens=300))
        await all_done([caller], 15)
        caller.check()
        assert client.num_restarts == 1
        await client.stop()

    asyncio.run(scenario())


def test_a_long_step_that_computes_is_not_taken_for_a_hang(monkeypatch):
    monkeypatch.setattr(child, "STUCK_S", 1.5)  # far less than the step takes, as 300 s are for one of an hour

    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        caller = Caller(client, request("a", BUSY, max_tokens=5))
        await all_done([caller], 40)
        caller.check()
        assert client.num_restarts == 0
        await client.stop()

    asyncio.run(scenario())


def test_a_step_that_never_ends_and_computes_nothing_is_ended(monkeypatch):
    monkeypatch.setattr(child, "STUCK_S", 1.5)
    monkeypatch.setattr(client_module, "PAUSES_S", (0.0, 0.1, 0.2, 5.0, 15.0))

    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        bad = Caller(client, request("bad", ASLEEP))
        good = Caller(client, request("good"))
        await all_done([bad, good], 60)
        good.check()
        assert "a step made no progress for 1.5 seconds" in bad.error
        await client.stop()

    asyncio.run(scenario())


def test_what_waits_is_counted_while_it_is_on_its_way():
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        for _ in range(100):
            if client.stats.num_free_rows:
                break
            await asyncio.sleep(0.05)
        assert client.stats.num_free_rows == 16
        callers = [Caller(client, request(f"{i}", max_tokens=300)) for i in range(16)]
        assert client.queued() == (0, 0)
        callers += [Caller(client, request(f"late {i}", max_tokens=300)) for i in range(4)]
        assert client.queued() == (4, 40)
        while client.stats.num_added < 20:
            await asyncio.sleep(0.01)
        assert client.queued() == (4, 40)
        client.abort("late 0")
        callers.pop(-4)
        await all_done(callers)
        await asyncio.sleep(0.1)
        assert client.queued() == (0, 0)
        await client.stop()

    asyncio.run(scenario())


def test_an_engine_that_cannot_start_says_why():
    async def scenario() -> None:
        client = EngineClient({"broken": "no such model, and that is all"})
        with pytest.raises(EngineDeadError, match="no such model, and that is all"):
            await client.start()
        with pytest.raises(EngineDeadError):
            client.add(request("a"), lambda update: None)
        await client.stop()

    asyncio.run(scenario())


def test_an_engine_that_always_dies_while_nobody_asks_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(client_module, "PAUSES_S", (0.0, 0.1, 0.2))

    async def scenario() -> None:
        client = EngineClient({"brief": True})
        await client.start()
        await asyncio.wait_for(client.wait_dead(), 30)
        assert client.num_restarts == 2
        assert "died again and again" in client.dead and "exit code 3" in client.dead
        with pytest.raises(EngineDeadError, match="again and again"):
            client.add(request("a"), lambda update: None)
        await client.stop()

    asyncio.run(scenario())
    assert "Starting another in 0.1 s for 0 open requests" in caplog.text


@pytest.mark.parametrize("has_asked", [True, False])
def test_deaths_of_engines_that_served_or_lived_are_not_counted(monkeypatch, has_asked):
    monkeypatch.setattr(client_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(client_module, "SOUND_S", 1e9 if has_asked else 0.3)

    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        for number in range(4):
            await until(lambda: client.is_serving, 20)
            if has_asked:
                await Caller(client, request(f"{number}")).done
            else:
                await asyncio.sleep(1.0)
            assert client._child is not None
            client._child.kill("it dies once a day")
            await until(lambda n=number: client.num_restarts == n + 1, 20)
        await until(lambda: client.is_serving, 20)
        assert not client.dead
        await client.stop()

    asyncio.run(scenario())


def test_what_cannot_be_sent_or_read_is_refused_alone():
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        others = [Caller(client, request(f"{i}", max_tokens=100)) for i in range(3)]
        unsendable = request("unsendable")
        unsendable.sampling.extra_args = {"a": 2**64}
        with pytest.raises(ValidationError, match="cannot be sent"):
            client.add(unsendable, lambda update: None)
        wrong = request("wrong")
        wrong.sampling.bad_words = {"no": "list"}  # an engine of today's front never meets it
        refused = Caller(client, wrong)
        await all_done([*others, refused])
        assert "cannot be read" in refused.error and "bad_words" in refused.error
        for caller in [*others, after := Caller(client, request("after"))]:
            await caller.done
            caller.check()
        assert client.num_restarts == 0 and after.num_tokens == 60
        await client.stop()

    asyncio.run(scenario())


def test_an_engine_that_is_woken_before_its_end_was_seen_has_not_died(monkeypatch, caplog):
    seen = child.Child.cause

    async def late(self):
        await asyncio.sleep(0.3)
        return await seen(self)

    monkeypatch.setattr(child.Child, "cause", late)

    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        pid, caller = client.pid, Caller(client, request("a", max_tokens=300))
        await client.sleep()
        client._awake.set()
        await until(lambda: client.pid != pid and client.is_serving, 30)
        await all_done([caller])
        caller.check()
        assert client.num_restarts == 0
        await client.stop()

    asyncio.run(scenario())
    assert "died" not in caplog.text


def test_a_call_that_was_given_up_does_not_stop_the_next_engine():
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        given_up, waits = (asyncio.get_running_loop().create_future() for _ in range(2))
        given_up.cancel()
        client._calls |= {1: given_up, 2: waits}  # as they are when a caller leaves in the moment of the death
        os.kill(client.pid, signal.SIGKILL)
        assert "the engine ended" in (await waits).error
        await until(lambda: client.num_restarts == 1 and client.is_serving, 30)
        await all_done([after := Caller(client, request("after"))])
        after.check()
        await client.stop()

    asyncio.run(scenario())


def test_an_aborted_request_gives_no_more_and_the_rest_goes_on():
    async def scenario() -> None:
        client = EngineClient({})
        await client.start()
        left, stays = Caller(client, request("left", n=2)), Caller(client, request("stays", n=2))
        client.abort("left")
        client.abort("stays", 1)
        client.abort("nobody")
        stays.open.discard(1)
        await all_done([stays])
        assert stays.tokens[0] == reference(stays.asked, 0, KV)
        assert left.tokens == {0: [], 1: []}
        assert client.num_open == 0
        await client.stop()

    asyncio.run(scenario())


def test_the_engine_ends_with_its_front(tmp_path):
    script = tmp_path / "front.py"
    script.write_text(
        "import asyncio\n"
        "from vllm.engine import child\n"
        "from vllm.engine.client import EngineClient\n"
        "child.PROGRAM = 'tests.fakes.engine_program'\n"
        "async def main():\n"
        "    client = EngineClient({})\n"
        "    await client.start()\n"
        "    print(client.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}
    for is_stopped in (False, True):
        with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as front:
            pid = int(front.stdout.readline())
            if is_stopped:
                os.kill(pid, signal.SIGSTOP)
            front.kill()
        end = time.monotonic() + 10
        while is_alive(pid):
            assert time.monotonic() < end, "the engine outlived its front"
            time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
