"""What every route of one server shares: the front, the arguments, the counts, and the rules that hold on all routes.

Called by: app makes it, routes read it.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from vllm.chat.template import shown_template
from vllm.config.args import EngineArgs
from vllm.config.server import ServerArgs
from vllm.engine.front import Front
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.log import RequestLog
from vllm.entrypoints.openai.metrics import Metrics
from vllm.entrypoints.openai.responses.store import Store
from vllm.entrypoints.openai.running import OpenRequests
from vllm.entrypoints.openai.schemas import Generation
from vllm.entrypoints.openai.traces import Traces
from vllm.errors import RefusedError, nearest
from vllm.features.pooling.host import NOT_LOADED, Recipe, recipe_of
from vllm.features.structured_output.host import StructuredOutput
from vllm.formats.choose import choose
from vllm.formats.format import Format
from vllm.util.log import get_logger
from vllm.version import __version__

_log = get_logger("vllm.server")
_TOLD = 256
"""Most names of unknown fields that the log tells of, each once."""


@dataclass(slots=True)
class Server:
    """One server."""

    engine_args: EngineArgs
    args: ServerArgs
    front: Front
    metrics: Metrics
    traces: Traces | None = None
    open: OpenRequests = field(init=False)
    responses: Store = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    is_draining: bool = False
    asleep: set[str] = field(default_factory=set)
    """What sleeps: weights, kv_cache."""
    _format: Format | None = None
    _structured: StructuredOutput | None = None
    _fingerprint: str = ""
    _told: set[str] = field(default_factory=set)
    api: Callable[[], dict[str, Any]] = dict
    """Makes the OpenAPI document."""

    def __post_init__(self) -> None:
        self.open = OpenRequests(RequestLog(self.engine_args, self.args), self.traces)
        self.responses = Store(self.args.max_stored_responses)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the model is served under; answers carry the first."""
        return self.engine_args.served_model_name or (self.engine_args.model or "builtin",)

    @property
    def fingerprint(self) -> str:
        """Stands for everything that answers depend on besides the request."""
        if not self._fingerprint:
            said = repr(
                sorted((name, str(value)) for name, value in asdict(self.engine_args).items() if name != "hf_token")
            )
            self._fingerprint = f"vllm-{__version__}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        return self._fingerprint

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer. RefusedError when it was left out."""
        if self.front.model.tokenizer is None:
            raise RefusedError("skip_tokenizer_init left the tokenizer out; only token ids go in.", field="prompt")
        return self.front.model.tokenizer

    @property
    def format(self) -> Format:
        """How the model writes thoughts and tool calls. ValidationError for a parser that does not exist."""
        if self._format is None:
            args, tokenizer = self.engine_args, self.front.model.tokenizer
            template = shown_template(tokenizer, args.chat_template)
            chosen = choose(template, self.args.tool_call_parser, args.reasoning_parser)
            _log.info("Answers are read with %s.", chosen.why)
            self._format = chosen.format
        return self._format

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be had."""
        tokenizer = self.front.model.tokenizer
        return self.engine_args.chat_template is not None or (
            tokenizer is not None and tokenizer.chat_template is not None
        )

    @property
    def structured(self) -> StructuredOutput:
        """Takes requests with a constraint."""
        if self._structured is None:
            self._structured = StructuredOutput(self.tokenizer, self.front.model.compiler_words)
        return self._structured

    @property
    def recipe(self) -> Recipe:
        """How the model makes embeddings. RefusedError where it generates."""
        found = recipe_of(self.engine_args, self.front.model.folder)
        if found is None:
            raise RefusedError(NOT_LOADED, field="model")
        return found

    def now(self) -> int:
        """Seconds since 1970, for answers."""
        return int(time.time())

    def check_key(self, request: Request) -> None:
        """401 unless the request carries one of the keys; the time it takes tells nothing about them."""
        keys = self.args.api_key
        if not keys:
            return
        given = given_key(request)
        known = [hmac.compare_digest(given, hashlib.sha256(key.encode()).digest()) for key in keys]
        if not any(known):
            raise HttpError(401, "A valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY.")

    def owner(self, request: Request) -> str:
        """Stands for the key of a request; "" where none is asked for."""
        return given_key(request).hex() if self.args.api_key else ""

    def check_model(self, name: str | None) -> None:
        """404 for a model that is not served."""
        if name is not None and name not in self.names:
            served = ", ".join(map(repr, self.names))
            raise HttpError(404, f"The model {name!r} does not exist here; served: {served}.", "model")

    def check_ready(self) -> None:
        """503 while no request can be taken."""
        if self.is_draining:
            raise HttpError(503, "The server is shutting down.")
        if not self.front.is_started:
            raise HttpError(503, "The engine is starting.")
        if self.front.client.dead:
            raise HttpError(503, "The engine has stopped.")
        if self.front.client.is_asleep:
            raise HttpError(503, "The engine sleeps; POST /wake_up ends that.")

    def check_room(self, num_requests: int = 0, num_tokens: int = 0) -> None:
        """503 when too many requests or prompt tokens wait, or would with these; alone in line anything fits."""
        args = self.engine_args
        if args.max_num_queued_reqs is None and args.max_num_queued_tokens is None:
            return
        requests, tokens = self.front.client.queued()
        for most, waiting, more, what in (
            (args.max_num_queued_reqs, requests, num_requests, "requests"),
            (args.max_num_queued_tokens, tokens, num_tokens, "prompt tokens"),
        ):
            if most is not None and (waiting >= most or (waiting and waiting + more > most)):
                self.metrics.on_refused()
                raise HttpError(503, f"Too many {what} wait; come again later.")

    def tenant(self, key: str, user: str | None) -> str:
        """Whose share of the engine a request uses: its key's, or its user's where everybody has the same key."""
        several = len(self.args.api_key or ()) > 1
        said = key if several else user or ""
        return hashlib.sha256(said.encode()).hexdigest()[:16] if said else ""

    def as_ids(self, body: Generation) -> bool:
        """Whether logprobs show tokens as token_id:7."""
        asked = body.return_tokens_as_token_ids
        return self.args.return_tokens_as_token_ids if asked is None else asked

    def unknown(self, names: list[str], known: type[BaseModel]) -> dict[str, str]:
        """Response headers that name fields nobody knows; a 400 with --strict-fields."""
        if not names:
            return {}
        if self.args.strict_fields:
            near = nearest(names[0], known.model_fields)
            raise HttpError(400, f"Unknown field {names[0]!r}.{near}", names[0])
        for name in names[:16]:
            if len(self._told) < _TOLD and name not in self._told:
                self._told.add(name)
                _log.warning("A request has the field %.64r, which nobody knows; it is ignored.", name)
        shown = ",".join(name[:64] for name in names[:16] if name.isascii() and name.isprintable())
        return {"x-ignored-fields": shown.replace("\r", "").replace("\n", "")}


def given_key(request: Request) -> bytes:
    """The hash of the key that a request carries."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = request.headers.get("x-api-key", "")  # why: Anthropic's clients send it so
    return hashlib.sha256(token.strip().encode()).digest()
