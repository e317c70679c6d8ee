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
EXAMPLES: dict[str, list[Expected]] = {
    "hermes": _HERMES,
    "qwen3": _HERMES,
    "qwen3_json": _HERMES,
}
