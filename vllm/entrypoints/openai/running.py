"""The requests that are open, by the id of their answer, so that one can be told of and ended from outside.

Does not know: HTTP. Called by: generate adds, routes ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vllm.engine.front import Flow
from vllm.entrypoints.openai.log import RequestLog
from vllm.entrypoints.openai.traces import Traces


@dataclass(frozen=True, slots=True)
class Label:
    """What a request is called, here and in its caller's traces."""

    name: str
    """The id of its answer."""
    carried: Mapping[str, str]
    """Headers that tie its span to the caller's."""
    key: str = ""
    """The hash of the API key that it came with."""


class OpenRequests:
    """Open flows by name; a client may use a name twice."""

    def __init__(self, log: RequestLog, traces: Traces | None = None) -> None:
        self._log, self._traces = log, traces
        self._flows: dict[str, list[Flow]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._flows.values()))

    def names(self) -> list[str]:
        """The ids of all open answers, oldest first."""
        return list(self._flows)

    def by_request(self) -> dict[str, str]:
        """The engine's id of each open request -> the id of its answer."""
        return {
            d.taken.request.request_id: name for name in self._flows for f in self._flows[name] for d in f.deliveries
        }

    def add(self, label: Label, flow: Flow) -> None:
        """A flow has begun; it leaves by itself when it is closed."""
        name = label.name
        self._flows.setdefault(name, []).append(flow)
        self._log.came(name, flow.deliveries)

        def leave() -> None:
            flows = self._flows[name]
            flows.remove(flow)
            if not flows:
                del self._flows[name]
            self._log.ended(name, flow.deliveries)
            if self._traces is not None and flow.deliveries:
                self._traces.ended(name, flow.deliveries, label.carried)

        flow.on_close = leave

    def cancel_all(self) -> None:
        """End every answer, with finish_reason "abort"."""
        for flow in [flow for flows in self._flows.values() for flow in flows]:
            flow.cancel()

    def cancel(self, name: str) -> bool:
        """End the answers of this id, with finish_reason "abort"; False when there is none.

        A client knows its own request_id, so that is a name too: an answer's id without what is before its first dash.
        """
        found = [
            flow for known in self._flows if name in (known, known.partition("-")[2]) for flow in self._flows[known]
        ]
        for flow in found:
            flow.cancel()
        return bool(found)
