"""Every architecture over two ranks, by tensors and by stages, says what transformers says on one (gloo, CPU)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.models import expected_logits, reference, save, tiny_configs
from tests.contract.split_worker import PROMPT
from vllm.util import env

CONFIGS = [(name, config) for name, config in tiny_configs() if "-" not in name]
# why: GPT-2 and Granite are published with vocabularies that two ranks do not divide; one is tied, the other may not be
CONFIGS += [
    (f"{name}, odd vocabulary", {**config, "vocab_size": 131, **more})
    for name, config in CONFIGS
    for more in ({}, {"tie_word_embeddings": not config.get("tie_word_embeddings", name == "gpt2")})
    if name in ("gpt2", "granite", "gemma2")
]
STEPS = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint of every TINY."""
    made = []
    for name, config in CONFIGS:
        made.append(tmp_path_factory.mktemp(name))
        save(reference(config), made[-1])
    return made


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)])
def test_two_ranks_say_what_one_says(folders: list[Path], tmp_path: Path, tp: int, pp: int) -> None:
    command = [sys.executable, "-m", "tests.contract.split_worker"]
    world = [str(tp), str(pp), f"file://{tmp_path}/world", str(STEPS), *map(str, folders)]
    children = [
        subprocess.Popen(
            [*command, str(rank), *world], stdout=subprocess.PIPE, text=True, env=env.for_child(OMP_NUM_THREADS="1")
        )
        for rank in (0, 1)
    ]
    try:
        said = [child.communicate(timeout=240)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0]
    lines = [json.loads(line) for out in said for line in out.splitlines() if line.startswith("[")]
    assert len(lines) == len(CONFIGS)
    for (name, config), tokens in zip(CONFIGS, lines, strict=True):
        logits = expected_logits(reference(config), PROMPT + tokens)[len(PROMPT) - 1 : -1]
        assert tokens == logits.argmax(-1).tolist(), name
