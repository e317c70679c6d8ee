"""The host's side: from a request's parameters to what it carries, and the resource that waits for its grammar (S1).

Does not know: devices, HTTP. Invariant: what `take` returns has been judged, so that the engine can compile it without
fear. Called by: assembly, entrypoints.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.judge import Judge, verdict
from vllm.features.structured_output.manifest import KEY
from vllm.features.structured_output.matching import Constraint, Thinking
from vllm.features.structured_output.source import Source, source_of
from vllm.protocol.request import Request
from vllm.protocol.sequence import Sequence
from vllm.sampling_params import SamplingParams


class StructuredOutput:
    """Takes requests with a constraint, for one model. `words` are the Compiler's."""

    def __init__(self, tokenizer: Any, words: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._words = dict(words)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self._words)

    def source(self, params: SamplingParams) -> Source | None:
        """The constraint of `params`, within the caps; None when there is none. Raises ValidationError."""
        if params.structured_outputs is None:
            return None
        return source_of(params.structured_outputs, self.literal)

    def take(self, params: SamplingParams, thinking: Thinking | None = None) -> dict[str, object]:
        """What a request with these parameters carries. Waits for the verdict. Raises ValidationError."""
        source = self.source(params)
        if source is None:
            return {}
        verdict(self._judge.check(source).result())
        return self._carried(source, thinking)

    async def take_later(self, params: SamplingParams, thinking: Thinking | None = None) -> dict[str, object]:
        """The same, for an event loop."""
        source = self.source(params)
        if source is None:
            return {}
        verdict(await asyncio.wrap_future(self._judge.check(source)))
        return self._carried(source, thinking)

    def _carried(self, source: Source, thinking: Thinking | None) -> dict[str, object]:
        return {KEY: Constraint(source, thinking).as_data(), "ends_early": True}

    def close(self) -> None:
        """End what was started. Safe to call twice."""
        if "_judge" in self.__dict__:
            self._judge.close()

    @cached_property
    def _marks(self) -> tuple[re.Pattern[str], dict[str, int]]:
        """A pattern that finds added tokens in text, and their ids."""
        added = {text: i for text, i in self._tokenizer.get_added_vocab().items() if text.strip()}
        longest = sorted(added, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) if longest else r"(?!)"), added

    def literal(self, text: str) -> str:
        """A literal text as lark: strings, and by its number each token that stands outside the ordinary ones."""
        pattern, added = self._marks
        made, at = [], 0
        for found in pattern.finditer(text):
            if found.start() > at:
                made.append(json.dumps(text[at : found.start()]))
            made.append(f"<[{added[found[0]]}]>")
            at = found.end()
        if at < len(text) or not made:
            made.append(json.dumps(text[at:]))
        return " ".join(made)


class GrammarCompiled:
    """S1: a sequence waits until its grammar is compiled in the worker's process; others are served meanwhile."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler

    def claims(self, request: Request) -> bool:
        """Whether the request has a constraint."""
        return KEY in request.features

    def reserve(self, seq: Sequence, num_tokens: int) -> bool:
        """Whether the grammar is there."""
        return seq.row >= 0 or self._compiler.is_ready(Constraint.of_data(seq.request.features[KEY]).source)

    def release(self, seq: Sequence) -> None:
        """Nothing is held: compiled grammars are remembered apart from sequences."""
