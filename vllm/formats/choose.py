"""Which format a model speaks: by name, or by what its chat template writes.

Does not know: HTTP. Called by: entrypoints.
"""

from vllm.formats.format import Format
from vllm.util.catalog import Catalogue, UnknownName

catalogue = Catalogue("vllm.formats", "format")


def named(name: str) -> Format:
    """The format of this name (vLLM's names of parsers). UnknownName naming the nearest."""
    found = catalogue.load(name).FORMATS[name]
    assert isinstance(found, Format)
    return found


def is_thinking(format: Format, prompt: str) -> bool:
    """Whether the answer to this prompt begins inside its reasoning span: the prompt ends with its beginning."""
    span = format.reasoning
    if span is None:
        return False
    tail = prompt.rstrip()
    if tail.endswith((span.begin, *span.begins)):
        return True
    return span.is_open and not tail.endswith((span.end, *span.ends))


__all__ = ["UnknownName", "catalogue", "is_thinking", "named"]
