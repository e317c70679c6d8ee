"""Log-probabilities in OpenAI's two shapes. Does not know: requests. Called by: routes/completions, routes/chat."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vllm.engine.deliver import TokenText
from vllm.outputs import Logprob, PromptLogprobs

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""
Found = Sequence[dict[int, Logprob] | None]
TokenBytes = Callable[[int], bytes]


def _value(found: Logprob) -> float:
    return max(found.logprob, _LOWEST)


def _token(token_id: int, found: Logprob | None, as_ids: bool) -> str:
    """A token as text, or as `token_id:7`."""
    if as_ids or found is None or found.decoded_token is None:
        return f"token_id:{token_id}"
    return found.decoded_token


def _best(found: dict[int, Logprob], wanted: int) -> list[tuple[int, Logprob]]:
    """The `wanted` most likely candidates."""
    return sorted(found.items(), key=lambda item: -item[1].logprob)[:wanted]


class CompletionLogprobs:
    """The `logprobs` of a completion: parallel lists. `offset` counts the characters of the tokens so far."""

    def __init__(self, wanted: int, as_ids: bool, token_text: TokenText | None) -> None:
        self._wanted, self._as_ids, self._token_text = wanted, as_ids, token_text
        self._offset = 0

    def of(self, token_ids: Iterable[int], found: Found) -> dict[str, Any]:
        """The lists for these tokens, which come after those of the call before."""
        tokens, values, offsets, tops = [], [], [], []
        for token_id, here in zip(token_ids, found, strict=True):
            mine = None if here is None else here.get(token_id)
            text = _token(token_id, mine, self._as_ids)
            if mine is None and self._token_text is not None and not self._as_ids:
                text = self._token_text(token_id)  # why: the first token of a prompt has no logprob, but a text
            tokens.append(text)
            values.append(None if mine is None else _value(mine))
            offsets.append(self._offset)
            self._offset += len(text)
            top = None
            if here is not None and mine is not None:
                best = [*_best(here, self._wanted), (token_id, mine)]
                top = {_token(i, one, self._as_ids): _value(one) for i, one in best}
            tops.append(top)
        return {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}


def chat_logprobs(
    token_ids: Iterable[int], found: Found, wanted: int, as_ids: bool, token_bytes: TokenBytes | None
) -> dict[str, Any]:
    """The `logprobs` of a chat answer: one object per token. Their bytes together are those of the text."""
    content = []
    for token_id, here in zip(token_ids, found, strict=True):
        assert here is not None
        one = _chat_token(token_id, here[token_id], as_ids, token_bytes)
        one["top_logprobs"] = [_chat_token(i, top, as_ids, token_bytes) for i, top in _best(here, wanted)]
        content.append(one)
    return {"content": content}


def _chat_token(token_id: int, found: Logprob, as_ids: bool, token_bytes: TokenBytes | None) -> dict[str, Any]:
    text = _token(token_id, found, as_ids)
    raw = text.encode("utf-8", "replace") if as_ids or token_bytes is None else token_bytes(token_id)
    return {"token": text, "logprob": _value(found), "bytes": list(raw)}


def prompt_logprobs(found: PromptLogprobs | None) -> list[dict[str, Any] | None] | None:
    """vLLM's own list: per prompt token, id -> logprob, rank, text."""
    if found is None:
        return None
    return [
        None
        if here is None
        else {
            str(i): {"logprob": _value(one), "rank": one.rank, "decoded_token": one.decoded_token}
            for i, one in here.items()
        }
        for here in found
    ]
