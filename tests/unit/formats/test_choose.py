"""The format is chosen by what the chat template writes, or by name."""

import pytest

from vllm.formats.choose import choose, guess, is_thinking, named

_LLAMA = 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}'
SAID = {  # what templates of a family hold -> the format
    "in <tool_call></tool_call> tags": "hermes",
    "<tool_call>\n<function=example>\n<parameter=p>": "qwen3_coder",
    "<tool_call>{name}<arg_key>": "glm45",
    "<minimax:tool_call>": "minimax_m2",
    "<seed:tool_call>": "seed_oss",
    "<｜tool▁calls▁begin｜> ```json": "deepseek_v3",
    "<｜tool▁calls▁begin｜>": "deepseek_v31",
    "<｜DSML｜invoke": "deepseek_v32",
    "<|tool_calls_section_begin|>": "kimi_k2",
    "[TOOL_CALLS]": "mistral",
    _LLAMA: "llama3_json",
    "<|header_start|>assistant<|header_end|> <|python_start|>": "llama4_pythonic",
    "<|tool_call|>": "granite",
    "<|action_start|><|plugin|>": "internlm",
    "<|tool|>": "phi4_mini_json",
    "<tool_calls>": "hunyuan_a13b",
    "<longcat_tool_call>": "longcat",
    "<|tool_call_start|>": "lfm2",
    "<function_calls>": "olmo3",
    "<|start|>assistant<|channel|>final<|message|>": "openai",
    "{{ messages }}": None,
}


@pytest.mark.parametrize("template", SAID)
def test_templates_tell(template):
    assert guess(template) == SAID[template]


def test_thoughts_are_read_where_the_template_shows_them():
    assert choose("<tool_call>").format.reasoning is None
    assert choose("<tool_call> <think> </think>").format.reasoning == named("hermes").reasoning
    assert choose("</seed:think>").format.reasoning == named("seed_oss").reasoning
    assert choose("[TOOL_CALLS] [THINK] [/THINK]").format.reasoning == named("mistral").reasoning


def test_names_win():
    both = choose("<tool_call></think>", tools="llama3_json", reasoning="deepseek_r1").format
    assert both.tools == named("llama3_json").tools and both.reasoning == named("deepseek_r1").reasoning
    assert choose("<tool_call></think>", tools="none").format.tools is None
    assert choose("<tool_call></think>", reasoning="none").format.reasoning is None
    for field, names in (("tools", ("hermse", "nemotron_v3")), ("reasoning", ("qwen", "jamba"))):
        for name in names:
            with pytest.raises(ValueError, match=name):
                choose("", **{field: name})


def test_the_prompt_says_whether_the_answer_begins_in_a_thought():
    form, always = named("hermes"), named("deepseek_r1")
    assert is_thinking(form, "<|im_start|>assistant\n<think>\n")
    assert not is_thinking(form, "<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not is_thinking(form, "what is <think>?<|im_end|>\n<|im_start|>assistant\n")
    assert is_thinking(always, "<|Assistant|>") and not is_thinking(always, "<|Assistant|></think>")
