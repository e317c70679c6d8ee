"""Grammars compiled for one tokenizer, and remembered. Torch-free: the trial, the resource and the stage share it.

    Source ─▶ llguidance's grammar ─▶ LLMatcher at its start ─▶ copies for rows

Does not know: rows, requests. Invariants: a grammar is compiled once while it is remembered; a compiled matcher is
never advanced, only copied. Called by: trial, host (resource), device.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm.errors import ValidationError
from vllm.features.structured_output.source import MAX_PROPERTIES, Source

_REMEMBERED = 256
_LIMITS = {"max_items_in_row": 16 * MAX_PROPERTIES, "step_max_items": 400 * MAX_PROPERTIES}
# why: an object of p optional properties takes 4 p items in a row; the library's own 2,000 stops at 500 in mid-text


class Compiler:
    """Grammars for the tokenizer in a folder and a model of `num_logits` logits."""

    def __init__(
        self, folder: str | Path, num_logits: int, mode: str = "auto", trust_remote_code: bool = False
    ) -> None:
        self.folder, self.num_logits, self.mode, self.trusts = str(folder), num_logits, mode, trust_remote_code
        self._ready: OrderedDict[Source, Any] = OrderedDict()
        self._coming: dict[Source, Future[Any]] = {}
        self._lock = threading.Lock()

    @cached_property
    def tokenizer(self) -> Any:
        """llguidance's view of the tokenizer; made when the first grammar comes."""
        from vllm.tokenizer.load import load

        return ll_tokenizer(load(self.folder, mode=self.mode, trust_remote_code=self.trusts), self.num_logits)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="vllm-grammar")

    def is_ready(self, source: Source) -> bool:
        """Whether a copy can be had at once; if not, it is being made behind."""
        with self._lock:
            if source in self._ready:
                return True
            coming = self._coming.get(source)
            if coming is None:
                self._coming[source] = self._thread.submit(self.matcher, source)
                return False
            if coming.done():
                del self._coming[source]
                return True  # why: one that cannot be compiled says so when it is asked for
            return False

    def matcher(self, source: Source) -> Any:
        """A matcher at its start. Raises ValidationError where the grammar is wrong."""
        with self._lock:
            found = self._ready.get(source)
            if found is not None:
                self._ready.move_to_end(source)
        if found is None:
            found = self._compile(source)
            with self._lock:
                self._ready[source] = found
                while len(self._ready) > _REMEMBERED:
                    self._ready.popitem(last=False)
        return found.deep_copy()

    def _compile(self, source: Source) -> Any:
        import llguidance

        limits = llguidance.LLParserLimits(**_LIMITS)
        matcher = llguidance.LLMatcher(self.tokenizer, ll_grammar(source), log_level=0, limits=limits)
        if matcher.is_error():
            raise ValidationError(f"structured_outputs: {first_lines(matcher.get_error())}", field="structured_outputs")
        return matcher


def ll_grammar(source: Source) -> str:
    """A Source in llguidance's own form. Raises ValidationError."""
    import llguidance

    make = llguidance.LLMatcher
    try:
        if source.kind == "json":
            return str(make.grammar_from_json_schema(source.text))
        if source.kind == "regex":
            return str(make.grammar_from_regex(source.text))
        if source.kind == "gbnf":
            from llguidance.gbnf_to_lark import gbnf_to_lark

            return str(make.grammar_from_lark(gbnf_to_lark(source.text)))
        return str(make.grammar_from_lark(source.text))
    except Exception as error:  # why: the converters raise types of their own, and recursion errors
        text = first_lines(f"{type(error).__name__}: {error}")
        raise ValidationError(f"structured_outputs: {text}", field="structured_outputs") from None


def ll_tokenizer(tokenizer: Any, num_logits: int) -> Any:
    """Our tokenizer as llguidance's: from its own JSON where it has one, else from the bytes of its tokens."""
    import llguidance

    eos = tokenizer.eos_token_id
    backend = tokenizer.backend_tokenizer
    size = max(num_logits, tokenizer.max_token_id + 1)
    if backend is not None:
        return llguidance.LLTokenizer(backend.to_str(), n_vocab=size, eos_token=0 if eos is None else eos)
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(tokenizer)), n_vocab=size)


class _Tokens:
    """What TokenizerWrapper asks of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_token_id or 0
        self.bos_token_id = None
        self.special_token_ids = sorted(tokenizer.skipped_ids)
        texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.max_token_id + 1)]
        self.tokens = [text.encode("utf-8") for text in texts]

    def __call__(self, text: str | bytes) -> Sequence[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def first_lines(text: str) -> str:
    """The beginning of an error, without the listing that may follow."""
    return " ".join(text.split())[:300]
