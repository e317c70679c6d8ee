"""What an idle engine prepares is all that plain requests need: no kernel is compiled while somebody waits.

A process of its own, in which nothing has been compiled before.
"""

from pathlib import Path

import pytest

from tests.e2e.test_gpu_memory import SHAPE, run

pytestmark = [pytest.mark.gpu, pytest.mark.gpu_alone]
SMALL = {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 2,
         "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096}  # fmt: skip
PROGRAM = """
    llm = LLM(sys.argv[1], load_format="dummy", skip_tokenizer_init=True, gpu_memory_utilization=0.3,
              max_model_len=4096, max_num_seqs=256, enable_prefix_caching=False)
    engine, new = llm.llm_engine.assembled.engine, []
    prepared = 0
    while engine.prepare():
        prepared += 1
    from triton import knobs
    knobs.runtime.jit_post_compile_hook = lambda *, fn, **more: new.append(fn.name)
    dice, asked, ended = random.Random(0), 0, 0
    for wave in range(60):
        for _ in range(dice.choice((0, 1, 1, 2, 7, 30))):
            prompt = [dice.randrange(3, 30000) for _ in range(dice.choice((3, 40, 333, 1500, 3000)))]
            heat = SamplingParams(temperature=dice.choice((0.0, 1.0)), max_tokens=dice.randint(1, 90), ignore_eos=True)
            llm.llm_engine.add_request(str(asked), TokensPrompt(prompt_token_ids=prompt), heat)
            asked += 1
        for _ in range(dice.choice((1, 2, 5, 9))):
            ended += sum(out.finished for out in llm.llm_engine.step())
    while llm.llm_engine.has_unfinished_requests():
        ended += sum(out.finished for out in llm.llm_engine.step())
    print(json.dumps({"prepared": prepared, "asked": asked, "ended": ended, "new": new}))
"""


def test_nothing_is_compiled_for_requests(tmp_path: Path) -> None:
    found = run(tmp_path, PROGRAM, shape={**SHAPE, **SMALL})
    assert found["prepared"] > 20
    assert found["asked"] == found["ended"] > 100
    assert found["new"] == []
