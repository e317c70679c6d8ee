"""What an offline engine survives: an interrupt, a lost worker, a full cache."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vllm import LLM, SamplingParams
from vllm.errors import EngineError

GREEDY = SamplingParams(temperature=0, max_tokens=8)
FOREVER = SamplingParams(temperature=1, max_tokens=4000, ignore_eos=True)
PROMPT = "The capital of France is"


def children() -> list[int]:
    """Process ids of the children of this process."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def answer(llm: LLM) -> str:
    return llm.generate(PROMPT, GREEDY, use_tqdm=False)[0].outputs[0].text


@pytest.fixture
def pythons_own_handler():
    """A shell that starts the tests in the background has SIGINT ignored; a user's script has Python's handler."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_interrupted_call_leaves_the_engine_usable(ranks, pythons_own_handler):
    with LLM(tensor_parallel_size=ranks) as llm:
        before = answer(llm)
        for delay in (0.3, 0.71, 1.13):
            timer = threading.Timer(delay, interrupt_all)
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                llm.generate([PROMPT] * 4, FOREVER, use_tqdm=False)
            timer.join()
            assert answer(llm) == before  # nothing of the interrupted call comes back
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt_all():
    """What Ctrl-C in a terminal does: every process of the program gets the signal."""
    for pid in (*children(), os.getpid()):
        os.kill(pid, signal.SIGINT)


def test_a_killed_worker_is_named_and_the_next_engine_works():
    with LLM(tensor_parallel_size=2) as llm:
        before = answer(llm)
        workers = children()
        assert len(workers) >= 2
        os.kill(workers[-1], signal.SIGKILL)
        start = time.monotonic()
        for _ in range(2):
            with pytest.raises(EngineError, match="worker"):
                llm.generate(PROMPT, FOREVER, use_tqdm=False)
        assert time.monotonic() - start < 20
    assert not set(workers) & set(children())
    with LLM() as llm:
        assert answer(llm) == before


def test_workers_end_when_the_users_process_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from vllm import LLM, SamplingParams\n"
        "llm = LLM(tensor_parallel_size=2)\n"
        "import os, pathlib\n"
        "tasks = pathlib.Path(f'/proc/{os.getpid()}/task').glob('*/children')\n"
        "print(*(word for task in tasks for word in task.read_text().split()), flush=True)\n"
        "llm.generate('Hello', SamplingParams(max_tokens=4000, ignore_eos=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        workers = [int(word) for word in child.stdout.readline().split()]
        assert len(workers) >= 2
        child.kill()
    end = time.monotonic() + 15
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker outlived the process that started it"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_cache_for_one_serves_many():
    with LLM(max_model_len=256, num_gpu_blocks_override=18, max_num_seqs=8) as llm:
        alone = answer(llm)
        outputs = llm.generate([PROMPT] * 8, GREEDY, use_tqdm=False)
        assert [output.outputs[0].text for output in outputs] == [alone] * 8
