"""What each family's models write, by the family's documentation, and what must come of it.

name -> [(text, reasoning, content, [(name, arguments), ...])]; `THINKING` texts begin inside the reasoning span.
"""

TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}},
        "required": ["city"],
    },
    "add": {
        "type": "object",
        "properties": {"numbers": {"type": "array", "items": {"type": "number"}}, "note": {"type": "string"}},
    },
    "now": {"type": "object", "properties": {}},
}
Expected = tuple[str, str, str, list[tuple[str, object]]]
PARIS = ("get_weather", {"city": "Paris", "days": 3})
SUM = ("add", {"numbers": [1, 2.5, -3e2], "note": 'a "quoted" {brace} \n line, ünï 🎈 </x>'})
NOW: tuple[str, object] = ("now", {})
_SUM = r'{"numbers": [1, 2.5, -3e2], "note": "a \"quoted\" {brace} \n line, ünï 🎈 </x>"}'
_PARIS = '{"city": "Paris", "days": 3}'

_HERMES: list[Expected] = [
    ("Hello there.\n", "", "Hello there.\n", []),
    ("<think>\nA thought.\n</think>\n\nHello.", "A thought.", "Hello.", []),
    ("<think>\n\n</think>\n\nHello.", "", "Hello.", []),
    (f'<tool_call>\n{{"name": "get_weather", "arguments": {_PARIS}}}\n</tool_call>', "", "", [PARIS]),
    (
        f'<think>Hm.</think>Two.\n<tool_call>\n{{"name": "add", "arguments": {_SUM}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "Hm.",
        "Two.",
        [SUM, NOW],
    ),
    (f'<tool_call>{{"arguments": {_PARIS}, "name": "get_weather"}}}}</tool_call>', "", "", [PARIS]),
    ('<tool_call>{"name": "now"}</tool_call>\nDone.', "", "Done.", [NOW]),
    ("A <tool_call>is no call</tool_call> B", "", "A <tool_call>is no call</tool_call> B", []),
    ("1 < 2, <tool_cal", "", "1 < 2, <tool_cal", []),
    (f'<think>So <tool_call>{{"name": "get_weather", "arguments": {_PARIS}}}</tool_call>', "So", "", [PARIS]),
]
_ADD, _CITY, _NOTE = (
    "<parameter=numbers>\n[1, 2.5, -3e2]\n</parameter>",
    "<parameter=city>\nParis\n</parameter>",
    SUM[1]["note"],
)
_CODER: list[Expected] = [
    ("Hello < there.", "", "Hello < there.", []),
    (
        f"<tool_call>\n<function=get_weather>\n{_CITY}\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "",
        "",
        [PARIS],
    ),
    (
        f"<think>Hm.</think>Two.\n<tool_call>\n<function=add>\n{_ADD}\n<parameter=note>\n{_NOTE}\n</parameter>\n</function>"
        "\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "Hm.",
        "Two.",
        [SUM, NOW],
    ),
    (
        "<tool_call><function=get_weather><parameter=city>7</parameter><parameter=metric>True</parameter></function></tool_call>",
        "",
        "",
        [("get_weather", {"city": "7", "metric": True})],
    ),
    (
        "<tool_call><function=add><parameter=other>__import__('os')</parameter></function></tool_call>",
        "",
        "",
        [("add", {"other": "__import__('os')"})],
    ),
    ("<tool_call>plain</tool_call>", "", "<tool_call>plain</tool_call>", []),
]
_SEED: list[Expected] = [
    tuple(  # type: ignore[misc]
        part.replace("<tool_call>", "<seed:tool_call>")
        .replace("</tool_call>", "</seed:tool_call>")
        .replace("<think>", "<seed:think>")
        .replace("</think>", "</seed:think>")
        if isinstance(part, str)
        else part
        for part in example
    )
    for example in _CODER
]


def invoke(name: str, *arguments: str, dsml: str = "") -> str:
    return f'<{dsml}invoke name="{name}">\n' + "\n".join(arguments) + f"\n</{dsml}invoke>"


def parameter(key: str, value: str, dsml: str = "", more: str = "") -> str:
    return f'<{dsml}parameter name="{key}"{more}>{value}</{dsml}parameter>'


_SUM_ARGS = (parameter("numbers", "[1, 2.5, -3e2]"), parameter("note", _NOTE))
_MINIMAX: list[Expected] = [
    ("A thought.</think>\n\nHello.", "A thought.", "Hello.", []),
    ("never ends", "never ends", "", []),
    (
        "So.</think>Two.\n<minimax:tool_call>\n"
        + invoke("add", *_SUM_ARGS)
        + "\n"
        + invoke("now")
        + "\n</minimax:tool_call>",
        "So.",
        "Two.",
        [SUM, NOW],
    ),
]
_D = "｜DSML｜"
_TRUE, _FALSE = ' string="true"', ' string="false"'
_DSML: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (
        f"<think>Hm.</think>Two.\n\n<{_D}function_calls>\n"
        + invoke(
            "add", parameter("numbers", "[1, 2.5, -3e2]", _D, _FALSE), parameter("note", _NOTE, _D, _TRUE), dsml=_D
        )
        + "\n"
        + invoke("get_weather", parameter("city", "Paris", _D, _TRUE), parameter("days", "3", _D, _FALSE), dsml=_D)
        + f"\n</{_D}function_calls>",
        "Hm.",
        "Two.",
        [SUM, PARIS],
    ),
]
_GLM: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (
        "<think>Hm.</think>\nTwo.\n<tool_call>add\n<arg_key>numbers</arg_key>\n<arg_value>[1, 2.5, -3e2]</arg_value>\n"
        f"<arg_key>note</arg_key>\n<arg_value>{_NOTE}</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
        "Hm.",
        "Two.",
        [SUM, NOW],
    ),
    (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key>"
        "<arg_value>3</arg_value></tool_call>",
        "",
        "",
        [PARIS],
    ),
    ("<tool_call>no call at all</tool_call>", "", "<tool_call>no call at all</tool_call>", []),
]
_B, _E = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_C, _S, _CE = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_V3_CALLS = f"{_B}{_C}function{_S}add\n```json\n{_SUM}\n```{_CE}\n{_C}function{_S}now\n```json\n{{}}\n```{_CE}{_E}"
_V3: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (f"<think>Hm.</think>\n\nTwo.{_V3_CALLS}", "Hm.", "Two.", [SUM, NOW]),
    (f"{_B}what?", "", f"{_B}what?", []),
]
_R1: list[Expected] = [
    ("Hm.\n</think>\n\nHello.", "Hm.", "Hello.", []),
    (f"Hm.</think>Two.{_V3_CALLS}", "Hm.", "Two.", [SUM, NOW]),
]
_V31: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (f"Two.{_B}{_C}add{_S}{_SUM}{_CE}{_C}now{_S}{{}}{_CE}{_E}", "", "Two.", [SUM, NOW]),
]
_KIMI: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (
        "<think>Hm.</think>Two.<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
        f"{_SUM}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        "Hm.",
        "Two.",
        [SUM, NOW],
    ),
]
_MISTRAL: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (f"[THINK]Hm.[/THINK]Two.[TOOL_CALLS]add[ARGS]{_SUM}[TOOL_CALLS]now[ARGS]{{}}", "Hm.", "Two.", [SUM, NOW]),
    (
        f'[TOOL_CALLS] [{{"name": "add", "arguments": {_SUM}}}, {{"name": "now", "arguments": {{}}, "id": "abc"}}]',
        "",
        "",
        [SUM, NOW],
    ),
    (f"[TOOL_CALLS]get_weather[CALL_ID]abcdef123[ARGS]{_PARIS}", "", "", [PARIS]),
]


def objects(key: str = "arguments", between: str = ", ") -> str:
    return f'{{"name": "add", "{key}": {_SUM}}}{between}{{"name": "now", "{key}": {{}}}}'


def listed(begin: str, end: str = "", thought: str = "") -> list[Expected]:
    return [
        ("Hello.", "", "Hello.", []),
        (f"Two. {begin}[{objects()}]{end}", "", "Two.", [SUM, NOW]),
        (f"{begin}\n[{objects()}]\n{end}", "", "", [SUM, NOW]),
        *([(f"<think>{thought}</think>{begin}[{objects()}]{end}", thought, "", [SUM, NOW])] if thought else []),
    ]


_LLAMA: list[Expected] = [
    ("Hello {you}.", "", "Hello {you}.", []),
    (objects("parameters", "; "), "", "", [SUM, NOW]),
    ("<|python_tag|>" + objects("parameters", ";"), "", "", [SUM, NOW]),
    ('{"name": "Anna", "age": 3}', "", '{"name": "Anna", "age": 3}', []),
    ('{"name": "now", "age": 3}', "", '{"name": "now", "age": 3}', []),
    ('{"city": "Paris"}', "", '{"city": "Paris"}', []),
]
_GRANITE: list[Expected] = [
    *listed("<|tool_call|>"),
    *listed("<tool_call>")[1:],
    ("Here is my thought process: Hm.\nHere is my response: Hello.", "Hm.", "Hello.", []),
]
_INTERNLM: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (
        f'<think>Hm.</think>One.<|action_start|><|plugin|>\n{{"name": "add", "parameters": {_SUM}}}<|action_end|>\n',
        "Hm.",
        "One.",
        [SUM],
    ),
]
_LONGCAT: list[Expected] = [
    ("<longcat_think>Hm.</longcat_think>Hello.", "Hm.", "Hello.", []),
    (
        f'<longcat_tool_call>\n{{"name": "add", "arguments": {_SUM}}}\n</longcat_tool_call>\n'
        '<longcat_tool_call>{"name": "now", "arguments": {}}</longcat_tool_call>',
        "",
        "",
        [SUM, NOW],
    ),
]
_PY_SUM = "add(numbers=[1, 2.5, -3e2], note='a \"quoted\" {brace} \\n line, ünï 🎈 </x>')"


def python(begin: str = "", end: str = "", between: str = ", ") -> list[Expected]:
    return [
        ("Hello [you](there).", "", "Hello [you](there).", []),
        (f"{begin}{_PY_SUM}{between}now(){end}", "", "", [SUM, NOW]),
        (
            f'{begin}get_weather(city="P\\u0061ris", days=+3, metric=False){between}'
            f"add(numbers=(1,), note=None, other={{'k': [True, {{}}]}}){end}",
            "",
            "",
            [
                ("get_weather", {"city": "Paris", "days": 3, "metric": False}),
                ("add", {"numbers": [1], "note": None, "other": {"k": [True, {}]}}),
            ],
        ),
    ]


_THOUGHTS: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    ("<think>\nA thought.\n</think>\n\nHello.", "A thought.", "Hello.", []),
]
_COHERE = "<|START_THINKING|>A thought.<|END_THINKING|>Hello."

_HARMONY: list[Expected] = [
    ("Hello.", "", "Hello.", []),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>",
        "Hm.",
        "Hello.",
        [],
    ),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>Two.<|end|>"
        f"<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{_SUM}<|call|>"
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
        "Hm.",
        "Two.",
        [SUM, NOW],
    ),
]
EXAMPLES: dict[str, list[Expected]] = {
    "openai": _HARMONY,
    "openai_gptoss": _HARMONY,
    **dict.fromkeys(("hermes", "qwen3", "qwen3_json", "granite4"), _HERMES),
    **dict.fromkeys(("qwen3_coder", "qwen3_xml", "step3p5", "mimo"), _CODER),
    "seed_oss": _SEED,
    "minimax_m2": _MINIMAX,
    "glm45": _GLM,
    "glm47": _GLM,
    "deepseek_r1": _R1,
    "deepseek_v3": _V3,
    "deepseek_v31": _V31,
    "deepseek_v32": _DSML,
    "kimi_k2": _KIMI,
    "mistral": _MISTRAL,
    "llama3_json": _LLAMA,
    "llama4_json": _LLAMA,
    "xlam": [*_LLAMA[:1], *_LLAMA[3:], (f"[{objects()}]", "", "", [SUM, NOW])],
    "granite": _GRANITE,
    "internlm": _INTERNLM,
    "phi4_mini_json": listed("functools"),
    "hunyuan_a13b": listed("<tool_calls>", "</tool_calls>", "Hm."),
    "jamba": listed("<tool_calls>", "</tool_calls>"),
    "longcat": _LONGCAT,
    "pythonic": python("[", "]"),
    "llama4_pythonic": [*python("[", "]"), *python("<|python_start|>[", "]<|python_end|>")[1:]],
    "lfm2": [
        ("Two. <|tool_call_start|>[now()]<|tool_call_end|>", "", "Two.", [NOW]),
        *python("<|tool_call_start|>[", "]<|tool_call_end|>"),
    ],
    "olmo3": python("<function_calls>", "</function_calls>", "\n"),
    **dict.fromkeys(("nemotron_v3", "holo2", "ernie45", "hy_v3", "step3"), _THOUGHTS),
    "minimax_m3": [("<mm:think>A thought.</mm:think>Hello.", "A thought.", "Hello.", [])],
    "cohere_command3": [(_COHERE, "A thought.", "Hello.", [])],
}
