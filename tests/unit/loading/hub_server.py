"""A hub on a local port, as far as a model is fetched from one: listings, heads and files, gates, and bad moods."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server holds: repo -> file name -> bytes; `gated` repos want the token `good`."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.status = 0
        self.asked: list[str] = []
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
            allowed = self.headers.get("Authorization") == "Bearer good"
            if self.path.startswith("/api/models/"):
                repo = self.path.removeprefix("/api/models/").partition("/revision/")[0]
                revision = self.path.partition("/revision/")[2]
                if repo not in hub.repos:
                    return (404 if allowed else 401), b"{}", {"X-Error-Code": "RepoNotFound"}
                if revision not in ("main", COMMIT):
                    return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
                names = [{"rfilename": n} for n in hub.repos[repo]]
                return 200, json.dumps({"sha": COMMIT, "siblings": names}).encode(), {}
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            name = rest.partition("/")[2]
            if repo in hub.gated and not allowed:
                return 401, b"", {"X-Error-Code": "GatedRepo"}
            body = hub.repos.get(repo, {}).get(name)
            if body is None:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            return 200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

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
