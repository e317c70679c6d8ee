"""A hub on a local port, as far as a model is fetched from one: listings, heads and files, gates, and bad moods."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


LARGE = 100_000


def etag(body: bytes) -> str:
    """Large files are named by SHA-256, small ones as git does."""
    if len(body) > LARGE:
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Hub:
    """What the server holds: repo -> file name -> bytes; `gated` repos want the token `good`."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.status = 0
        self.busy = 0
        """Answer this many requests with 429 first."""
        self.cut = 0
        """Break off this many answers of large files in the middle."""
        self.slow = 0.0
        """Seconds that an answer with a large file takes."""
        self.spoil = 0
        """Send this many files with a wrong content of the right length."""
        self.plain: dict[str, bytes] = {}
        """Path -> file of a web server that is no hub."""
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.url = ""


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            self._answer(*self._find())

        def _find(self) -> tuple[int, bytes, dict[str, str]]:
            if hub.status:
                return hub.status, b"<html>sign in</html>", {}
            if hub.busy:
                hub.busy -= 1
                return 429, b"", {"Retry-After": "0"}
            if self.path in hub.plain:
                return 200, hub.plain[self.path], {}
            allowed = self.headers.get("Authorization") == "Bearer good"
            if self.path.startswith("/api/models/"):
                repo = self.path.removeprefix("/api/models/").partition("/revision/")[0]
                revision = self.path.partition("/revision/")[2].partition("?")[0] or "main"
                if repo not in hub.repos:
                    return (404 if allowed else 401), b"{}", {"X-Error-Code": "RepoNotFound"}
                if revision not in ("main", COMMIT):
                    return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
                names = [{"rfilename": n, "size": len(body)} for n, body in hub.repos[repo].items()]
                return 200, json.dumps({"sha": COMMIT, "siblings": names}).encode(), {}
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            name = rest.partition("/")[2]
            if repo in hub.gated and not allowed:
                return 401, b"", {"X-Error-Code": "GatedRepo"}
            body = hub.repos.get(repo, {}).get(name)
            if body is None:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            return 200, body, {"ETag": f'"{etag(body)}"', "X-Repo-Commit": COMMIT}

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            asked = self.headers.get("Range", "")
            if asked and status == 200:
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
                status, body = 206, body[start:]
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.spoil and len(body) > LARGE:
                hub.spoil -= 1
                body = bytes(len(body))
            if hub.cut and len(body) > LARGE:
                hub.cut -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            pieces = 10 if hub.slow and len(body) > LARGE else 1
            for k in range(pieces):
                self.wfile.write(body[len(body) * k // pieces : len(body) * (k + 1) // pieces])
                time.sleep(hub.slow / 10 if pieces > 1 else 0)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
