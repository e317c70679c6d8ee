"""The events of a stored response, from any of them on, and those that are still to come. Called by: routes."""

from collections.abc import AsyncGenerator

from vllm.entrypoints.openai.responses.store import Entry


async def replay(entry: Entry, first: int) -> AsyncGenerator[bytes, None]:
    """Pieces of whole events, the first with sequence number `first`."""
    at = num_skipped = 0
    while True:
        while at < len(entry.events):
            events = [piece + b"\n\n" for piece in entry.events[at].split(b"\n\n") if piece]
            at += 1
            shown = events[max(0, first - num_skipped) :]
            num_skipped += len(events)
            if shown:
                yield b"".join(shown)
        if entry.is_told:
            return
        await entry.wait()
