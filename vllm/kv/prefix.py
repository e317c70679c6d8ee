"""Content keys of prefixes, and the index from key to block.

A key stands for everything from position 0 to the end of a run of tokens: salt, tenant, adapter, token ids and the
content hashes of embeddings. Keys are chained blake2b digests of 32 bytes, so two different prefixes share a key only
if the hash function is broken, and nobody can search for such a pair.

    root = H(salt, tenant, adapter)     key 0 = H(root, tokens 0..b)     key 1 = H(key 0, tokens b..2b)   ...

For: prefix reuse that is never wrong. Does not know: references, free lists, devices.
Invariant: index and blocks are a bijection per group. Called by: kv.pool, kv.manager.
"""

from array import array
from hashlib import blake2b

from vllm.protocol.request import EmbedSpan, Request
from vllm.protocol.sequence import Sequence

KEY_BYTES = 32
# Features of a request that change what its KV holds. A feature that does must be named here.
KEYED_FEATURES = ("adapter_id",)


def root_key(request: Request, isolate_tenants: bool) -> bytes:
    """The start of the chain: everything but tokens that decides what a block holds and who may read it."""
    parts = [request.cache_salt, request.tenant if isolate_tenants else ""]
    parts += [repr(request.features[name]) if name in request.features else "" for name in KEYED_FEATURES]
    digest = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode()
        # why: lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


class KeyChain:
    """Makes the keys of sequences, one per `block_size` tokens."""

    def __init__(self, block_size: int, isolate_tenants: bool) -> None:
        self.block_size = block_size
        self.isolate_tenants = isolate_tenants

    def extend(self, seq: Sequence, num_tokens: int) -> list[bytes]:
        """`seq.keys`, grown to cover the whole blocks in its first `num_tokens` tokens."""
        size, keys, tokens = self.block_size, seq.keys, seq.tokens
        wanted = min(num_tokens, len(tokens)) // size
        if len(keys) >= wanted:
            return keys
        prev = keys[-1] if keys else root_key(seq.request, self.isolate_tenants)
        first = len(keys)
        data = array("q", tokens[first * size : wanted * size]).tobytes()
        step = 8 * size
        extras = _embeddings(seq.request, first * size, wanted * size, size) if first * size < seq.prompt_len else {}
        for i in range(wanted - first):
            digest = blake2b(prev, digest_size=KEY_BYTES)
            digest.update(data[i * step : (i + 1) * step])
            for extra in extras.get(first + i, ()):
                digest.update(extra)
            prev = digest.digest()
            keys.append(prev)
        return keys


def _embeddings(request: Request, start: int, end: int, size: int) -> dict[int, list[bytes]]:
    """Per block in positions [start, end): what stands for the embeddings in it (hash, where they begin)."""
    found: dict[int, list[bytes]] = {}
    pos = 0
    for span in request.spans:
        low, high = max(pos, start), min(pos + span.num_tokens, end)
        if isinstance(span, EmbedSpan) and low < high:
            for block in range(low // size, (high - 1) // size + 1):
                offset = pos - block * size
                mark = offset.to_bytes(8, "little", signed=True) + span.num_tokens.to_bytes(8, "little")
                mark += len(span.content_hash).to_bytes(8, "little") + span.content_hash
                found.setdefault(block, []).append(mark)
        pos += span.num_tokens
    return found


class PrefixIndex:
    """Key -> block for each group, and back."""

    def __init__(self, num_groups: int) -> None:
        self._blocks: list[dict[bytes, int]] = [{} for _ in range(num_groups)]
        self._owner: dict[int, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._owner)

    def find(self, group: int, key: bytes) -> int | None:
        """The block that holds this prefix's end in `group`, or None."""
        block = self._blocks[group].get(key)
        assert block is None or self._owner[block] == (group, key), "the prefix index and its blocks disagree"
        return block

    def holds(self, block: int) -> bool:
        """Whether the block has a key."""
        return block in self._owner

    def publish(self, group: int, key: bytes, block: int) -> None:
        """Offer a full block. The first block of a key stays; a block keeps its first key."""
        blocks = self._blocks[group]
        if key in blocks or block in self._owner:
            return
        blocks[key] = block
        self._owner[block] = (group, key)

    def forget(self, block: int) -> None:
        """The block is about to hold something else."""
        owner = self._owner.pop(block, None)
        if owner is not None:
            del self._blocks[owner[0]][owner[1]]

    def clear(self) -> None:
        """Forget every block."""
        for blocks in self._blocks:
            blocks.clear()
        self._owner.clear()

    def check(self) -> None:
        """The bijection; raises AssertionError."""
        assert sum(map(len, self._blocks)) == len(self._owner), "index and owners differ in number"
        for block, (group, key) in self._owner.items():
            assert self._blocks[group].get(key) == block, f"block {block} is not where its key points"
