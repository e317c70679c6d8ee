"""Which format a model speaks: by vLLM's parser names, or by what its chat template writes.

    auto      each format has signs, literals that its family's templates hold; the format with most signs found wins
    a name    that format's tool syntax, or its reasoning syntax
    none      no such syntax: text stays text

Does not know: HTTP. Called by: entrypoints.
"""

from dataclasses import dataclass, replace

from vllm.errors import ValidationError
from vllm.formats.format import Format, Span
from vllm.util.catalog import Catalogue, UnknownName

catalogue = Catalogue("vllm.formats", "format")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A format, and how it came to be chosen."""

    format: Format
    why: str


def named(name: str) -> Format:
    """The format of this name. UnknownName naming the nearest."""
    found = catalogue.load(name).FORMATS[name]
    assert isinstance(found, Format)
    return found


def choose(template: str, tools: str = "auto", reasoning: str = "auto") -> Chosen:
    """The format for a chat template and the names that the user gave. Raises ValidationError for an unknown name."""
    guessed = guess(template)
    made = Format() if guessed is None else named(guessed)
    tools_from = reasoning_from = f"{guessed} (the chat template shows it)" if guessed else "none"
    if tools != "auto":
        made, tools_from = _with_tools(tools), tools
        reasoning_from = tools
    if reasoning == "auto":
        made = replace(made, reasoning=_span_in(template, made.reasoning))
        reasoning_from = "none" if made.reasoning is None else f"{made.reasoning.begin} (the chat template shows it)"
    elif reasoning == "none":
        made, reasoning_from = replace(made, reasoning=None), "none"
    else:
        made, reasoning_from = _with_reasoning(made, reasoning), reasoning
    return Chosen(made, f"tool calls as {tools_from}, reasoning as {reasoning_from}")


def guess(template: str) -> str | None:
    """The format whose signs the template holds; None when it holds none's."""
    best: tuple[tuple[int, int], str] | None = None
    for name in catalogue.names():
        signs = named(name).signs
        if signs and all(sign in template for sign in signs):
            weight = len(signs), sum(map(len, signs))
            if best is None or weight > best[0]:
                best = weight, name
    return None if best is None else best[1]


def is_thinking(format: Format, prompt: str) -> bool:
    """Whether the answer to this prompt begins inside its reasoning span: the prompt ends with its beginning."""
    span = format.reasoning
    if span is None:
        return False
    tail = prompt.rstrip()
    if tail.endswith((span.begin, *span.begins)):
        return True
    return span.is_open and not tail.endswith((span.end, *span.ends))


def _with_tools(name: str) -> Format:
    if name == "none":
        return Format()
    made = _named("tool_call_parser", name)
    if made.tools is None and made.main is None:
        raise ValidationError.of("tool_call_parser", name, "a format with tool calls", _known(tools=True))
    return made


def _with_reasoning(made: Format, name: str) -> Format:
    """`made` with the reasoning of another format."""
    other = _named("reasoning_parser", name)
    if other.reasoning is None and other.main is None:
        raise ValidationError.of("reasoning_parser", name, "a format with reasoning", _known(tools=False))
    if other.main is not None:
        return other
    return replace(made, reasoning=other.reasoning, main=None)


def _named(field: str, name: str) -> Format:
    try:
        return named(name)
    except UnknownName as error:
        raise ValidationError(f"{field}: {error}.", field=field, value=name) from None


def _known(tools: bool) -> str:
    having = [n for n in catalogue.names() if (named(n).tools if tools else named(n).reasoning) is not None]
    return f"Those are {', '.join(having)}."


def _span_in(template: str, own: Span | None) -> Span | None:
    """The reasoning span that the template shows: the format's own, or that of any other."""
    spans = [own] if own is not None else []
    spans += [s for name in catalogue.names() if (s := named(name).reasoning) is not None and not s.is_open]
    return next((span for span in spans if span.end in template), None)


__all__ = ["Chosen", "catalogue", "choose", "guess", "is_thinking", "named"]
