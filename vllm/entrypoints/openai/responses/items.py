"""Events of an answer as the output items of a response, streamed and whole by the same steps.

    ReasoningDelta ─▶ reasoning item     TextDelta ─▶ message item     CallStart .. CallEnd ─▶ function_call item

Does not know: HTTP, the response around the items. Invariant: items are opened and closed one after the other; an
item's deltas put together are the item. Called by: making.
"""

import copy
import uuid
from collections.abc import Iterable
from typing import Any

from vllm.formats.events import CallArguments, CallEnd, CallStart, Event, ReasoningDelta, TextDelta

_PREFIX = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}
_DELTA = {"message": "response.output_text", "reasoning": "response.reasoning_text"}


class Items:
    """The output of one response."""

    def __init__(self, shows_reasoning: bool) -> None:
        self.made: list[dict[str, Any]] = []
        self._shows_reasoning = shows_reasoning
        self._open: dict[str, Any] | None = None
        self._logprobs: list[dict[str, Any]] = []
        """Of tokens whose text has not come yet."""

    def add(self, events: Iterable[Event], logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take events in, with the log-probabilities of the tokens they come from; returns what a stream says."""
        told: list[dict[str, Any]] = []
        self._logprobs += logprobs
        for event in events:
            match event:
                case TextDelta(text):
                    self._write(told, "message", text)
                case ReasoningDelta(text):
                    self._logprobs = []
                    if self._shows_reasoning:
                        self._write(told, "reasoning", text)
                case CallStart(_, call_id, name):
                    self._logprobs = []
                    self._begin(told, "function_call", call_id=call_id, name=name, arguments="")
                case CallArguments(_, text):
                    assert self._open is not None
                    self._open["arguments"] += text
                    told.append({**self._place("response.function_call_arguments.delta"), "delta": text})
                case CallEnd(_, is_whole):
                    told += self.close("completed" if is_whole else "incomplete")
        return told

    def close(self, status: str) -> list[dict[str, Any]]:
        """End the open item."""
        item = self._open
        if item is None:
            return []
        told: list[dict[str, Any]] = []
        if item["type"] == "function_call":
            done = self._place("response.function_call_arguments.done")
            told.append({**done, "name": item["name"], "arguments": item["arguments"]})
        else:
            [part] = item["content"]
            more = {"logprobs": part["logprobs"]} if item["type"] == "message" else {}
            done = {**self._place(_DELTA[item["type"]] + ".done"), "content_index": 0}
            told.append({**done, "text": part["text"], **more})
            told.append({**self._place("response.content_part.done"), "content_index": 0, "part": part})
        item["status"] = status
        told.append({"type": "response.output_item.done", "output_index": len(self.made) - 1, "item": item})
        self._open = None
        return copy.deepcopy(told)

    def message(self) -> dict[str, Any]:
        """The output as a message of the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        for item in self.made:
            if item["type"] == "message":
                message["content"] += item["content"][0]["text"]
            elif item["type"] == "reasoning":
                message["reasoning_content"] = message.get("reasoning_content", "") + item["content"][0]["text"]
            else:
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
        return message

    def _place(self, kind: str) -> dict[str, Any]:
        return {"type": kind, "item_id": self.made[-1]["id"], "output_index": len(self.made) - 1}

    def _begin(self, told: list[dict[str, Any]], kind: str, **fields: Any) -> None:
        told += self.close("completed")
        item = {"id": _PREFIX[kind] + uuid.uuid4().hex, "type": kind, "status": "in_progress", **fields}
        self.made.append(item)
        self._open = item
        added = {"type": "response.output_item.added", "output_index": len(self.made) - 1}
        told.append({**added, "item": copy.deepcopy(item)})

    def _write(self, told: list[dict[str, Any]], kind: str, text: str) -> None:
        if self._open is None or self._open["type"] != kind:
            fields: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            self._begin(told, kind, **fields, content=[])
            assert self._open is not None
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
            if kind == "message":
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._open["content"].append(part)
            added = {**self._place("response.content_part.added"), "content_index": 0}
            told.append({**added, "part": copy.deepcopy(part)})
        assert self._open is not None
        [part] = self._open["content"]
        part["text"] += text
        more: dict[str, Any] = {}
        if kind == "message":
            more["logprobs"], self._logprobs = self._logprobs, []
            part["logprobs"] += more["logprobs"]
        told.append({**self._place(_DELTA[kind] + ".delta"), "content_index": 0, "delta": text, **more})
