"""Small functions of vLLM's `utils` that scripts import: printing, bytes of embeddings, sockets, processes.

Does not know: requests. Callers: users, through the facade modules of vllm/utils and vllm/distributed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import enum
import functools
import gc
import io
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vllm.errors import ValidationError

_SHOWN = 4
EMBED_DTYPES = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}
"""What embeddings may be sent as -> torch's name of it."""
ENDIANNESS = ("native", "big", "little")


class UsageContext(enum.StrEnum):
    """Who makes an engine. Accepted where vLLM takes it; nothing is reported anywhere."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    OPENAI_API_SERVER = "OPENAI_API_SERVER"
    OPENAI_BATCH_RUNNER = "OPENAI_BATCH_RUNNER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"


def print_embeddings(embeds: Sequence[float], prefix: str = "Embeddings") -> None:
    """The first numbers of an embedding, and how many there are."""
    shown = ", ".join(str(one) for one in list(embeds)[:_SHOWN])
    print(f"{prefix}: [{shown}{', ...' if len(embeds) > _SHOWN else ''}] (size={len(embeds)})")


def tensor2base64(x: Any) -> str:
    """A tensor as text: the file that torch.save writes, in base64."""
    import torch

    buffer = io.BytesIO()
    torch.save(x, buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def binary2tensor(
    binary: bytes, shape: tuple[int, ...], embed_dtype: str = "float32", endianness: str = "native"
) -> Any:
    """The tensor that bytes of the server hold."""
    import sys

    import torch

    if embed_dtype not in EMBED_DTYPES:
        raise ValidationError.of("embed_dtype", embed_dtype, f"one of {', '.join(EMBED_DTYPES)}")
    dtype: torch.dtype = getattr(torch, EMBED_DTYPES[embed_dtype])
    data = bytearray(binary)
    if endianness not in ("native", sys.byteorder):
        size = dtype.itemsize
        for at in range(0, len(data), size):
            data[at : at + size] = data[at : at + size][::-1]
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def redact_sensitive_namespace(args: argparse.Namespace) -> argparse.Namespace:
    """A copy to be printed, without keys and tokens."""
    secret = ("api_key", "hf_token", "header", "headers")
    shown = {name: "***" if name in secret and value else value for name, value in vars(args).items()}
    return argparse.Namespace(**shown)


def get_ip() -> str:
    """This host's address as others see it; 127.0.0.1 where there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("10.255.255.255", 1))  # why: nothing is sent; the kernel only picks the way out
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def set_ulimit(target_soft_limit: int = 65535) -> None:
    """Allow this process more open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = target_soft_limit if hard == resource.RLIM_INFINITY else min(target_soft_limit, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def destroy_distributed_environment() -> None:
    """End torch.distributed's groups of this process; an engine's own ranks are other processes."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def destroy_model_parallel() -> None:
    """Nothing: an engine ends with its LLM."""


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Let go of what engines of this process held; one that is still referred to keeps its memory."""
    del shutdown_ray
    import torch

    destroy_distributed_environment()
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()


def with_cancellation(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A handler of an HTTP request (its `raw_request`) that is cancelled when the client goes away."""

    async def gone(request: Any) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @functools.wraps(handler)
    async def wrapped(*args: Any, **words: Any) -> Any:
        request = args[1] if len(args) > 1 else words["raw_request"]
        work, left = asyncio.ensure_future(handler(*args, **words)), asyncio.ensure_future(gone(request))
        done, pending = await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return work.result() if work in done else None

    return wrapped


async def serve_http(app: Any, sock: socket.socket | None = None, **uvicorn_words: Any) -> asyncio.Task[None]:
    """Serve an ASGI application until a signal. Returns a task that ends with it."""
    import uvicorn

    uvicorn_words.pop("enable_ssl_refresh", None)
    # why: None means uvicorn's own choice, which it does not take as a value for every word
    given = {name: one for name, one in uvicorn_words.items() if one is not None}
    server = uvicorn.Server(uvicorn.Config(app, **given))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # why: its own would raise again
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        await server.serve(sockets=None if sock is None else [sock])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return asyncio.create_task(_nothing())


async def _nothing() -> None:
    """What is left to wait for when a server has ended."""
