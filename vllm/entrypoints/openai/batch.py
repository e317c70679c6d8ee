"""OpenAI's batch files: each line a request, each answered line written at once, so that a batch can be gone on with.

    input lines ─ those without an answer yet ─▶ the server's own routes, without a socket ─▶ output lines

Does not know: what routes do. Invariants: the output holds one whole line per answered request, whenever the program
is killed; nothing is fetched from elsewhere. Called by: cli/run_batch.
"""

import argparse
import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from vllm.config.args import EngineArgs
from vllm.config.server import ServerArgs
from vllm.config.server_compat import judge_server_others
from vllm.engine.front import Front
from vllm.errors import EngineDeadError, ValidationError
from vllm.util.log import get_logger

_log = get_logger("vllm.batch")
URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
TELL_S = 10.0
_AGAIN = 503
"""An answer that says "come again" is no answer."""


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0 when every request has an answer, be it an error. Raises ValueError for what is wrong."""
    judge_server_others(arguments, _log)
    source, target = Path(arguments.input_file), Path(arguments.output_file)
    if arguments.max_concurrency < 1:
        raise ValidationError.of("max_concurrency", arguments.max_concurrency, "at least 1")
    wanted = _ids(source)
    if arguments.overwrite:
        target.unlink(missing_ok=True)
    done = _answered(target, wanted)
    if done:
        rest = "going on with the rest" if len(done) < len(wanted) else "nothing is left to do"
        _log.info("%s has %d of %d answers; %s.", target, len(done), len(wanted), rest)
        if len(done) == len(wanted):
            return 0
    given = vars(arguments)
    args = ServerArgs(**{f.name: given[f.name] for f in fields(ServerArgs)})
    engine_args = EngineArgs.from_cli_args(arguments)
    return asyncio.run(_run(engine_args, args, source, target, done, arguments.max_concurrency))


def _ids(source: Path) -> dict[str, int]:
    """custom_id -> line number of every request. Raises ValidationError for a file that is no batch."""
    found: dict[str, int] = {}
    for number, line in _lines(source):
        custom_id = line.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id:
            raise ValidationError(f"{source}:{number}: custom_id must be a non-empty string.", field="input_file")
        if custom_id in found:
            raise ValidationError(
                f"{source}:{number}: custom_id {custom_id[:64]!r} is that of line {found[custom_id]} too.",
                field="input_file",
            )
        found[custom_id] = number
    return found


def _lines(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The requests of a file, with their line numbers."""
    if "://" in str(source):
        raise ValidationError("input_file must be a local file; fetch it first.", field="input_file")
    try:
        with source.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _object(raw, f"{source}:{number}")
    except OSError as error:
        raise ValidationError(f"{source} cannot be read: {error.strerror}.", field="input_file") from None


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError as error:
        raise ValidationError(f"{where} is not JSON: {error}.", field="input_file") from None
    if not isinstance(line, dict):
        raise ValidationError(f"{where} is not a JSON object.", field="input_file")
    return line


def _answered(target: Path, wanted: dict[str, int]) -> set[str]:
    """The requests that have an answer. A last line that was cut off by a kill is taken out of the file."""
    if not target.exists():
        return set()
    data = target.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    done = set()
    for number, raw in enumerate(whole.splitlines(), start=1):
        custom_id = _object(raw, f"{target}:{number}").get("custom_id")
        if custom_id not in wanted:
            raise ValidationError(
                f"{target}:{number} answers no request of the input file.",
                field="output_file",
                remedy="Name another file, or say --overwrite.",
            )
        done.add(custom_id)
    if len(whole) < len(data):
        with target.open("r+b") as file:
            file.truncate(len(whole))
    return done


async def _run(engine_args: EngineArgs, args: ServerArgs, source: Path, target: Path, done: set[str], most: int) -> int:
    from vllm.entrypoints.openai.app import make_app
    from vllm.entrypoints.openai.metrics import Metrics
    from vllm.entrypoints.openai.state import Server

    metrics = Metrics((engine_args.served_model_name or (engine_args.model or "builtin",))[0])
    front = Front(engine_args, metrics)
    app = make_app(Server(engine_args, args, front, metrics))
    causes: list[BaseException] = []
    try:
        await front.start()
        with target.open("ab") as out:
            await _Batch(app, front, out, done, most, (args.api_key or ("",))[0]).answer_all(source)
    except* EngineDeadError as dead:
        causes += dead.exceptions
    finally:
        await front.stop()
    if causes:
        _log.error("The batch has stopped: %s. Run it again to go on.", causes[0])
    return 1 if causes else 0


class _Batch:
    """Requests on their way."""

    def __init__(self, app: Any, front: Front, out: BinaryIO, done: set[str], most: int, key: str) -> None:
        self._app, self._front, self._out, self._done, self._key = app, front, out, done, key
        self._free = asyncio.Semaphore(most)
        self._num_good = self._num_bad = 0
        self._began = self._told = time.monotonic()

    async def answer_all(self, source: Path) -> None:
        """Answer every request that has no answer."""
        async with asyncio.TaskGroup() as group:
            for _, line in _lines(source):
                if line["custom_id"] not in self._done:
                    await self._free.acquire()
                    group.create_task(self._answer(line))
        self._tell()

    async def _answer(self, line: dict[str, Any]) -> None:
        try:
            status, body = await self._ask(line)
            response = {"status_code": status, "request_id": f"vllm-{uuid.uuid4().hex}", "body": body}
            error = None if status == 200 else body.get("error", body)
            told = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": line["custom_id"], "response": response}
            self._write({**told, "error": error})
            self._num_good += status == 200
            self._num_bad += status != 200
        finally:
            self._free.release()
        if time.monotonic() - self._told > TELL_S:
            self._tell()

    async def _ask(self, line: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(status, answer) of one request."""
        url, body = line.get("url"), line.get("body")
        if line.get("method", "POST") != "POST" or url not in URLS:
            return 400, _wrong(f"POST and one of {', '.join(URLS)} are what a batch may ask.")
        if not isinstance(body, dict):
            return 400, _wrong("body must be an object.")
        if body.get("stream") or body.get("background"):
            return 400, _wrong("a batch takes whole answers: leave out stream and background.")
        while True:
            status, answer = await ask_inside(self._app, str(url), json.dumps(body).encode(), self._key)
            if status != _AGAIN:
                return status, answer
            if self._front.client.dead:
                raise EngineDeadError(self._front.client.dead)
            await asyncio.sleep(1.0)

    def _write(self, line: dict[str, Any]) -> None:
        """One line, in one call, on the disk before it counts."""
        self._out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._out.flush()
        os.fsync(self._out.fileno())

    def _tell(self) -> None:
        self._told = time.monotonic()
        _log.info(
            "%d requests answered in %.1f s, %d of them with an error; %d had an answer before.",
            self._num_good + self._num_bad,
            self._told - self._began,
            self._num_bad,
            len(self._done),
        )


def _wrong(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}


async def ask_inside(app: Any, path: str, body: bytes, key: str) -> tuple[int, dict[str, Any]]:
    """(status, JSON) of a POST to an ASGI application in this process."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())],
        "client": None,
        "server": None,
    }
    is_read, forever = False, asyncio.Event()
    status, pieces = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if is_read:
            await forever.wait()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    answer = json.loads(b"".join(pieces))
    assert isinstance(answer, dict)
    return status, answer
