"""One turn of the assistant, for every chat API: which tools it may call, how its text becomes events.

    tools, tool_choice ─▶ ToolRules ┐
    the model's Format ─────────────┼─▶ Turn ─▶ a Reader per choice: CompletionOutput ─▶ events, finish reason, counts
    the prompt's end ───────────────┘

Tools come in OpenAI's form; other APIs translate theirs. Does not know: HTTP, JSON of any API. Invariant: whole and
streamed answers take the same road. Called by: routes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm.errors import ValidationError
from vllm.features.structured_output.matching import Thinking
from vllm.formats.choose import is_thinking
from vllm.formats.events import CallArguments, CallEnd, CallStart, Event
from vllm.formats.format import Format, Tool
from vllm.formats.parser import Parser
from vllm.outputs import CompletionOutput


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What a request says about tools."""

    tools: tuple[Tool, ...] = ()
    """Those that may be called."""
    choice: str = "none"
    """none, auto or required."""
    has_many: bool = True
    """More than one call in a turn is welcome."""

    @classmethod
    def of(
        cls, tools: Sequence[Mapping[str, Any]] | None, choice: Any = None, has_many: bool | None = None
    ) -> "ToolRules":
        """From `tools`, `tool_choice` and `parallel_tool_calls`. Raises ValidationError naming the field."""
        known = {tool.name: tool for tool in (_tool(i, given) for i, given in enumerate(tools or ()))}
        if len(known) < len(tools or ()):
            raise ValidationError("tools: two functions have the same name.", field="tools")
        mode, names = _choice(choice, bool(known))
        if mode != "none" and not known:
            raise ValidationError("tool_choice needs tools.", field="tool_choice", value=choice)
        for name in names or ():
            if name not in known:
                told = ", ".join(map(repr, known))
                raise ValidationError.of("tool_choice", name, f"the name of one of the tools ({told})")
        may = tuple(known.values()) if names is None else tuple(known[name] for name in names)
        is_one = isinstance(choice, Mapping) and choice.get("type") == "function"
        return cls(() if mode == "none" else may, mode, has_many is not False and not is_one)


def _tool(index: int, given: Mapping[str, Any]) -> Tool:
    where = f"tools[{index}]"
    if given.get("type", "function") != "function":
        raise ValidationError.of(f"{where}.type", given.get("type"), "'function'")
    function = given.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise ValidationError.of(f"{where}.function.name", name, "a non-empty string")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ValidationError.of(f"{where}.function.parameters", parameters, "a JSON schema")
    return Tool(name, parameters or {"type": "object", "properties": {}}, bool(function.get("strict")))


def _choice(given: Any, has_tools: bool) -> tuple[str, list[str] | None]:
    """(mode, names of the tools that may be called, or None for all)."""
    if given is None:
        return ("auto" if has_tools else "none"), None
    if given in ("none", "required"):
        return str(given), None
    if given == "auto":
        return ("auto" if has_tools else "none"), None
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "function":
        function = given.get("function")
        name = function.get("name") if isinstance(function, Mapping) else given.get("name")
        return "required", [str(name)]
    if kind == "allowed_tools":
        inner = given.get("allowed_tools", given)
        mode, tools = inner.get("mode", "auto"), inner.get("tools")
        if mode in ("auto", "required") and isinstance(tools, list) and tools:
            return mode, [
                str((tool.get("function") or tool).get("name")) for tool in tools if isinstance(tool, Mapping)
            ]
    raise ValidationError.of("tool_choice", given, "'none', 'auto', 'required' or {'type': 'function', ...}")


@dataclass(frozen=True, slots=True)
class Turn:
    """How the answers of one request are read."""

    format: Format
    rules: ToolRules = field(default_factory=ToolRules)
    is_thinking: bool = False
    """The prompt ends inside the reasoning span."""
    thought_ids: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    """Tokens that begin and that end the reasoning span."""
    shown: frozenset[int] = frozenset()
    """Special tokens that the parser must see."""

    @classmethod
    def of(cls, format: Format, rules: ToolRules, prompt: str, tokenizer: Any) -> "Turn":
        """The turn that follows a prompt."""
        span, known = format.reasoning, tokenizer.token_to_id
        begins = ids(known, () if span is None else (span.begin, *span.begins))
        ends = ids(known, () if span is None else (span.end, *span.ends))
        reads = (
            format if rules.choice != "none" or format.main is not None else Format(format.reasoning, main=format.main)
        )
        shown = ids(known, reads.markers) & tokenizer.skipped_ids
        return cls(format, rules, is_thinking(format, prompt), (begins, ends), shown)

    @property
    def is_plain(self) -> bool:
        """Text is all that comes, so that nobody needs to read it."""
        reads_calls = self.rules.choice != "none" and self.format.tools is not None
        return self.format.reasoning is None and self.format.main is None and not reads_calls

    def thinking(self, may_begin: bool, tokenizer: Any) -> Thinking | None:
        """The reasoning span as tokens, for a constraint that begins behind it; None when there will be none."""
        begins, ends = self.thought_ids
        if not ends or not (self.is_thinking or (may_begin and begins)):
            return None
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in ("\n", "\n\n")]
        gap = {one[0] for one in encoded if len(one) == 1}
        return Thinking(self.is_thinking, tuple(sorted(begins)), tuple(sorted(ends)), tuple(sorted(gap)))

    def reader(self) -> "Reader":
        """A reader for one choice."""
        tools = None if self.rules.choice == "none" else self.rules.tools
        return Reader(Parser(self.format, tools, self.is_thinking), self)


def ids(token_to_id: Any, texts: Iterable[str]) -> frozenset[int]:
    """The tokens that are exactly one of these texts."""
    return frozenset(i for text in texts if (i := token_to_id(text)) is not None)


class Reader:
    """Reads the outputs of one choice, each with what is new since the last."""

    def __init__(self, parser: Parser, turn: Turn) -> None:
        self._parser, self._turn = parser, turn
        self._thinks = turn.is_thinking
        self._is_first = True
        self.num_thought_tokens = 0

    def read(self, output: CompletionOutput) -> list[Event]:
        """The events of this output; the last ones when it says why it ended."""
        self._count(output.token_ids)
        events = self._parser.feed(output.text) if output.text else []
        if output.finish_reason is not None:
            events += self._parser.finish()
        return events if self._turn.rules.has_many else [e for e in events if not _is_later_call(e)]

    def finish_reason(self, output: CompletionOutput) -> str | None:
        """Why it ended, as chat APIs say it: a turn that ended by itself and called tools ended for them."""
        if output.finish_reason == "stop" and self._parser.num_calls:
            return "tool_calls"
        return output.finish_reason

    def _count(self, token_ids: Sequence[int]) -> None:
        """Count the tokens of thoughts, marks included."""
        begins, ends = self._turn.thought_ids
        if self._is_first and token_ids:
            self._is_first = False
            self._thinks = self._thinks or token_ids[0] in begins
        if self._thinks:
            end = next((n for n, token in enumerate(token_ids) if token in ends), None)
            self.num_thought_tokens += len(token_ids) if end is None else end + 1
            self._thinks = end is None


def _is_later_call(event: Event) -> bool:
    return isinstance(event, CallStart | CallArguments | CallEnd) and event.index > 0
