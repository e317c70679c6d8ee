"""One response in the making: the response around its items, its events, and its end.

Does not know: sockets. Invariant: the last event carries the response that a whole answer is. Called by: routes.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vllm.entrypoints.openai.errors import HttpError, as_http
from vllm.entrypoints.openai.logprobs import chat_logprobs
from vllm.entrypoints.openai.responses.items import Items
from vllm.entrypoints.openai.responses.schemas import ResponsesRequest
from vllm.entrypoints.openai.responses.store import Entry, Store
from vllm.entrypoints.openai.stream import KEEP, Form
from vllm.entrypoints.openai.talk import Part, Talk
from vllm.util.log import get_logger

_log = get_logger(__name__)
_json = msgspec.json.Encoder().encode


def _event(told: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (told["type"].encode(), _json(told))


def _failed(error: HttpError) -> bytes:
    told = {"code": "server_error", "message": error.message, "param": error.param, "sequence_number": 0}
    return _event({"type": "error", **told})


FORM = Form("text/event-stream; charset=utf-8", _failed, KEEP)


@dataclass(slots=True)
class Making:
    """See the module."""

    talk: Talk
    body: ResponsesRequest
    entry: Entry
    store: Store | None
    """Where it is kept, if at all."""
    items: Items
    _number: int = field(default=0)

    def number(self, told: list[dict[str, Any]]) -> bytes:
        """Events in the order in which they are told."""
        pieces = []
        for one in told:
            pieces.append(_event({**one, "sequence_number": self._number}))
            self._number += 1
        return b"".join(pieces)

    async def whole(self) -> dict[str, Any]:
        """The response in one piece."""
        async for _ in self._steps():
            pass  # the items remember
        return self.entry.response

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response in events; those of one step come in one piece."""
        response = self.entry.response
        begin = self.number([{"type": "response.created", "response": response}])
        response["status"] = "in_progress"
        begin += self.number([{"type": "response.in_progress", "response": response}])
        async for told in self._steps():
            if told or begin:
                yield begin + self.number(told)
                begin = b""
        yield self.number([self._last()])

    async def behind(self) -> None:
        """Make it with nobody at the other end; what happens is in the entry."""
        try:
            async for piece in self.events():
                self.entry.events.append(piece)
                self.entry.tell()
        except Exception as error:
            if as_http(error).status == 500:
                _log.error("A response in the background failed.", exc_info=error)
            self.entry.events.append(self.number([self._last()]))
        finally:
            self.talk.close()
            self.entry.is_told = True
            self.entry.tell()

    def leave(self) -> None:
        """Nobody waits for it any more: what has not ended is cancelled, and kept as far as it came."""
        self.talk.close()
        if self.entry.cancel is not None:
            self.items.close("incomplete")
            self._end("cancelled")

    def _last(self) -> dict[str, Any]:
        status = self.entry.response["status"]
        kind = {"completed": "completed", "failed": "failed"}.get(status, "incomplete")
        return {"type": f"response.{kind}", "response": self.entry.response}

    async def _steps(self) -> AsyncIterator[list[dict[str, Any]]]:
        """What each step says; behind the last one the response is at its end."""
        try:
            async for parts in self.talk.parts():
                told: list[dict[str, Any]] = []
                for part in parts:
                    told += self.items.add(part.events, self._logprobs(part))
                    if part.finish_reason is not None:
                        is_whole = part.finish_reason in ("stop", "tool_calls")
                        told += self.items.close("completed" if is_whole else "incomplete")
                        self._ended(part.finish_reason)
                yield told
        except Exception as error:
            self.items.close("incomplete")
            self._end("failed", error={"code": "server_error", "message": as_http(error).message})
            raise

    def _logprobs(self, part: Part) -> list[dict[str, Any]]:
        if not self.talk.body.logprobs:
            return []
        c, wanted = part.output, self.body.top_logprobs or 0
        spell = self.talk.server.front.model.token_bytes
        found: list[dict[str, Any]] = chat_logprobs(c.token_ids, c.logprobs or (), wanted, False, spell)["content"]
        # why: the token that ends an answer has no text; whether it comes with the last that has is a matter of timing
        ends = c.finish_reason == "stop" and not isinstance(c.stop_reason, str)
        return found[:-1] if ends else found

    def _ended(self, reason: str) -> None:
        if reason == "length":
            self._end("incomplete", incomplete_details={"reason": "max_output_tokens"})
        else:
            self._end("cancelled" if reason == "abort" else "completed")

    def _end(self, status: str, **more: Any) -> None:
        """The response is over: count, and keep it with its conversation."""
        entry, usage = self.entry, self.talk.usage.as_dict()
        entry.response |= {
            "status": status,
            "output": self.items.made,
            "completed_at": self.talk.server.now() if status == "completed" else None,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": usage["completion_tokens_details"],
                "total_tokens": usage["total_tokens"],
            },
            **more,
        }
        if self.items.made:
            entry.conversation.append(self.items.message())
        entry.cancel = None
        if self.store is not None:
            self.store.put(entry)


def blank(talk: Talk, body: ResponsesRequest, is_stored: bool) -> dict[str, Any]:
    """The response before anything is made."""
    params = talk.flow.deliveries[0].params
    form = body.text.format if body.text is not None else None
    effort = body.reasoning.effort if body.reasoning is not None else None
    return {
        "id": talk.id,
        "object": "response",
        "created_at": talk.created,
        "completed_at": None,
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "model": talk.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": effort, "summary": None},
        "service_tier": "default",
        "store": is_stored,
        "temperature": params.temperature,
        "text": {"format": form or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.tool_choice if body.tool_choice is not None else "auto",
        "tools": [{"strict": None, "parameters": None, "description": None, **tool} for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
