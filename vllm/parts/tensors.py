"""Every parameter of a description by name, shape and way of sharding: one list for planner, loader and layers.

Names::

    embed.weight  embed.positions  embed.proj  norm.weight|bias  head.weight|bias  head.proj
    layers.{i}.{pre_mixer|pre_ffn|post_mixer|post_ffn}.weight|bias
    layers.{i}.mixer.qkv.weight|bias     rows: all of q, then k, then v   (pieces q, k, v)
    layers.{i}.mixer.o.weight|bias  layers.{i}.mixer.{q_norm|k_norm}.weight|bias  layers.{i}.mixer.sinks
    layers.{i}.ffn.gate_up.weight|bias   rows: gate, then up (pieces gate, up); an MLP without gate has only up
    layers.{i}.ffn.down.weight|bias
    layers.{i}.ffn.router.weight  layers.{i}.ffn.experts.gate_up [X, 2I, E]  layers.{i}.ffn.experts.down [X, E, I]
    layers.{i}.ffn.shared.gate_up.weight  layers.{i}.ffn.shared.down.weight

Linear weights are [out, in], as torch keeps them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vllm.parts.basic import Norm
from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention

_PADDING = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stacked dimension, loaded and sharded by itself; it splits only between its `units` (heads)."""

    size: int
    units: int
    is_padded: bool = False
    """Where the ranks do not divide it, every rank has equal room and the last ones' ends hold zeros (vocabularies)."""

    def room(self, size: int, rank: int) -> int:
        """Length that a rank holds, padding and all."""
        return self._padded_room(size) if self.is_padded else self.shard(size, rank)[1]

    def _padded_room(self, size: int) -> int:
        # why: whole vectors on every device; vocabularies that divide stay as they are
        step = 1 if self.size % size == 0 else size * _PADDING
        return -(-self.size // step) * step // size

    def shard(self, size: int, rank: int) -> tuple[int, int]:
        """(start, length) of a rank's share. With fewer units than ranks each unit is held by several ranks."""
        if self.is_padded:
            room = self._padded_room(size)
            start = min(rank * room, self.size)
            return start, min(room, self.size - start)
        if self.units >= size:
            if self.units % size:
                raise ValueError(f"{self.units} units (heads or rows) cannot be split over {size} ranks evenly")
            length = self.size // size
            return rank * length, length
        if size % self.units:
            raise ValueError(f"{size} ranks cannot share {self.units} units (heads) evenly")
        length = self.size // self.units
        return rank // (size // self.units) * length, length


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter: full shape, and along which dimension (`shard_dim`, None: copied to each rank) it is sharded.

    `pieces` cut `shard_dim` (or dimension 0 where nothing is sharded) into what is loaded and sharded separately.
    """

    name: str
    shape: tuple[int, ...]
    shard_dim: int | None = None
    pieces: tuple[Piece, ...] = ()

    @property
    def numel(self) -> int:
        """Elements of the full tensor."""
        n = 1
        for s in self.shape:
            n *= s
        return n

    def local_shape(self, size: int, rank: int) -> tuple[int, ...]:
        """Shape of what `rank` out of `size` holds: its share, and zeros where that is padded."""
        if self.shard_dim is None or size == 1:
            return self.shape
        shape = list(self.shape)
        shape[self.shard_dim] = sum(p.room(size, rank) for p in self.pieces)
        return tuple(shape)

    def is_padded(self, size: int, rank: int) -> bool:
        """Whether `rank` holds more than its share."""
        return size > 1 and any(p.room(size, rank) > p.shard(size, rank)[1] for p in self.pieces if p.is_padded)

    def ranges(self, size: int, rank: int) -> list[tuple[int, int]]:
        """Per piece (start within the piece, length) of the share of `rank`; everything where nothing is sharded."""
        if self.shard_dim is None or size == 1:
            return [(0, p.size) for p in self.pieces]
        return [p.shard(size, rank) for p in self.pieces]


def _norm(name: str, n: Norm | None) -> Iterator[TensorSpec]:
    if n is None or not n.affine:
        return
    yield TensorSpec(f"{name}.weight", (n.dim,))
    if n.bias:
        yield TensorSpec(f"{name}.bias", (n.dim,))


def _column(name: str, pieces: tuple[Piece, ...], in_dim: int, bias: bool) -> Iterator[TensorSpec]:
    rows = sum(p.size for p in pieces)
    yield TensorSpec(f"{name}.weight", (rows, in_dim), 0, pieces)
    if bias:
        yield TensorSpec(f"{name}.bias", (rows,), 0, pieces)


def _row(name: str, out_dim: int, piece: Piece, bias: bool) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", (out_dim, piece.size), 1, (piece,))
    if bias:
        yield TensorSpec(f"{name}.bias", (out_dim,))


def _attention(name: str, a: Attention) -> Iterator[TensorSpec]:
    h = a.heads
    q, kv = Piece(h.num * h.dim, h.num), Piece(h.num_kv * h.dim, h.num_kv)
    yield from _column(f"{name}.qkv", (q, kv, kv), a.hidden, a.qkv_bias)
    for part, norm, piece in zip(("q_norm", "k_norm"), a.qk_norm or (), (q, kv), strict=False):
        for spec in _norm(f"{name}.{part}", norm):
            # why: a norm over the whole row of heads is cut like the heads themselves
            wide = norm.dim != h.dim
            yield TensorSpec(spec.name, spec.shape, 0, (piece,)) if wide else spec
    if a.sinks:
        yield TensorSpec(f"{name}.sinks", (h.num,), 0, (Piece(h.num, h.num),))
    yield from _row(f"{name}.o", a.hidden, q, a.out_bias)


def _mlp(name: str, m: MLP) -> Iterator[TensorSpec]:
    piece = Piece(m.inter, m.inter)
    yield from _column(f"{name}.gate_up" if m.gated else f"{name}.up", (piece,) * (1 + m.gated), m.hidden, m.bias)
    yield from _row(f"{name}.down", m.hidden, piece, m.bias)


def _moe(name: str, m: MoE) -> Iterator[TensorSpec]:
    e, x = m.expert, m.num_experts
    piece = Piece(e.inter, e.inter)
    yield TensorSpec(f"{name}.router.weight", (x, e.hidden))
    yield TensorSpec(f"{name}.experts.gate_up", (x, 2 * e.inter, e.hidden), 1, (piece, piece))
    yield TensorSpec(f"{name}.experts.down", (x, e.hidden, e.inter), 2, (piece,))
    if m.shared is not None:
        yield from _mlp(f"{name}.shared", m.shared)


def layer_tensors(decoder: Decoder, i: int) -> Iterator[TensorSpec]:
    """Parameters of layer `i`."""
    b, name = decoder.blocks[i], f"layers.{i}"
    for slot in ("pre_mixer", "pre_ffn", "post_mixer", "post_ffn"):
        yield from _norm(f"{name}.{slot}", getattr(b, slot))
    yield from _attention(f"{name}.mixer", b.mixer)
    yield from _moe(f"{name}.ffn", b.ffn) if isinstance(b.ffn, MoE) else _mlp(f"{name}.ffn", b.ffn)


def embed_tensors(decoder: Decoder) -> Iterator[TensorSpec]:
    """Parameters before the first layer. The token table is sharded over rows of the vocabulary, padded."""
    e = decoder.embed
    yield TensorSpec("embed.weight", (e.vocab, e.dim), 0, (Piece(e.vocab, e.vocab, is_padded=True),))
    if e.positions:
        yield TensorSpec("embed.positions", (e.positions, decoder.hidden))
    if e.dim != decoder.hidden:
        yield TensorSpec("embed.proj", (decoder.hidden, e.dim))


def head_tensors(decoder: Decoder) -> Iterator[TensorSpec]:
    """Parameters after the last layer; a tied head has no table of its own."""
    e = decoder.embed
    yield from _norm("norm", decoder.final_norm)
    if e.dim != decoder.hidden:
        yield TensorSpec("head.proj", (e.dim, decoder.hidden))
    vocab = (Piece(e.vocab, e.vocab, is_padded=True),)
    if not decoder.head.tied:
        yield TensorSpec("head.weight", (e.vocab, e.dim), 0, vocab)
    if decoder.head.bias:
        yield TensorSpec("head.bias", (e.vocab,), 0, vocab)


def tensors(decoder: Decoder) -> list[TensorSpec]:
    """Every parameter of the model, in the order of the forward pass."""
    specs = list(embed_tensors(decoder))
    for i in range(len(decoder.blocks)):
        specs.extend(layer_tensors(decoder, i))
    return specs + list(head_tensors(decoder))


def stage_layers(num_layers: int, size: int, rank: int) -> range:
    """Layers of pipeline stage `rank` out of `size`; first and last, which also embed and judge, get fewer."""
    if size > num_layers:
        raise ValueError(f"{num_layers} layers cannot be split over {size} pipeline stages")
    short, extra = divmod(num_layers, size)
    # why: the middle stages take the remainder first, then the last but one, ...; with two stages the first takes it
    order = sorted(range(size), key=lambda r: (r in (0, size - 1), r))
    counts = [short + (order.index(r) < extra) for r in range(size)]
    return range(sum(counts[:rank]), sum(counts[: rank + 1]))


def stage_tensors(decoder: Decoder, size: int = 1, rank: int = 0) -> list[TensorSpec]:
    """Parameters that pipeline stage `rank` holds. A tied head keeps the token table on the last stage too."""
    specs = list(embed_tensors(decoder)) if rank == 0 else []
    for i in stage_layers(len(decoder.blocks), size, rank):
        specs.extend(layer_tensors(decoder, i))
    if rank == size - 1:
        if rank and decoder.head.tied:
            specs.append(next(embed_tensors(decoder)))
        specs.extend(head_tensors(decoder))
    return specs


def num_parameters(decoder: Decoder) -> int:
    """Exact count of parameters, tied ones once."""
    return sum(s.numel for s in tensors(decoder))
