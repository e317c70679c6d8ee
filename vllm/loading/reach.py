"""A web request with one deadline for everything: name lookup, proxy, connection, TLS and answer.

Sockets know only a timeout per operation, and a name lookup none at all, so the request runs in a thread that is left
behind when time is up. Does not know what is asked. Called by: hub, modelscope.
"""

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_ANSWER = 32 * 1024 * 1024


@dataclass(slots=True)
class Answer:
    """Status, headers (lower-case names) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Unreachable(Exception):
    """Nobody answered; the text says why. `wait`: seconds after which a hub that is only busy may be asked again."""

    wait: float | None = None


def get(url: str, seconds: float, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url`; any status is an answer. Raises Unreachable after at most `seconds`."""
    result: list[Answer | Unreachable] = []
    thread = threading.Thread(target=lambda: result.append(_ask(url, seconds, headers or {})), daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        raise Unreachable(f"no answer within {seconds:g} s")
    if isinstance(result[0], Unreachable):
        raise result[0]
    return result[0]


def _ask(url: str, seconds: float, headers: Mapping[str, str]) -> Answer | Unreachable:
    request = urllib.request.Request(url, headers={"User-Agent": "vllm", **headers})
    try:
        try:
            with urllib.request.urlopen(request, timeout=seconds, context=tls(url)) as reply:
                return Answer(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read(_MAX_ANSWER))
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read(_MAX_ANSWER))
    except Exception as error:
        # why: whatever went wrong on the way (DNS, TLS, proxy, a half answer) means the same to the caller
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Unreachable(str(reason) or type(reason).__name__)


def tls(url: str) -> ssl.SSLContext | None:
    if not url.startswith("https:"):
        return None
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())  # why: minimal images have no certificates of their own
    return context
