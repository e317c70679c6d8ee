"""Every sharded layer on several ranks says what it says on one. Ranks are threads, their collectives are lists."""

import threading

import pytest
import torch

from tests.unit.worker.helpers import make_kv_plan, make_worker_plan, random_weights
from vllm.layers.build import build, make_slabs
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Target, select
from vllm.parallel.mesh import Mesh
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head, Wiring
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention, Heads
from vllm.parts.tensors import stage_tensors
from vllm.protocol.kv import KVPlan
from vllm.worker.make import rank_kv_plan

torch.set_num_threads(1)

OPS = select(Target("cpu", torch.float32), {"*": "reference"})
E, D = 32, 8


class ThreadAxis:
    """An axis whose ranks are threads of this process."""

    def __init__(self, size, rank, room):
        self.size, self.rank, self._room = size, rank, room
        self.is_first, self.is_last = rank == 0, rank == size - 1

    def _all(self, x):
        barrier, places = self._room
        places[self.rank] = x.clone()
        barrier.wait()
        everyone = list(places)
        barrier.wait()
        return everyone

    def all_reduce(self, x):
        return x if self.size == 1 else x.copy_(sum(self._all(x)))

    def all_gather(self, x, dim=-1):
        return x if self.size == 1 else torch.cat(self._all(x), dim)


def decoder_of(**kind):
    heads = Heads(kind.get("heads", 4), kind.get("kv", 4), D)
    q, k = heads.num * D, heads.num_kv * D
    norms = {
        None: None,
        "head": (Norm(D), Norm(D)),
        "row": (Norm(q), Norm(k)),
        "row_layer": (Norm(q, kind="layer"), Norm(k, kind="layer")),
    }[kind.get("qk")]
    mixer = Attention(E, heads, D**-0.5, Rope(D), qkv_bias=True, out_bias=True, qk_norm=norms, sinks=True)
    mlp = MLP(E, 24, "gelu", gated=False, bias=True) if kind.get("plain") else MLP(E, 24, bias=True)
    ffn = MoE(4, 2, MLP(E, 16), shared=MLP(E, 8)) if kind.get("moe") else mlp
    wiring = kind.get("wiring", Wiring.SERIAL)
    after = Norm(E) if wiring is Wiring.POST else None
    before = None if after else Norm(E)
    block = Block(mixer, ffn, before, before, after, after, wiring=wiring, residual_scale=0.7)
    embed = Embedding(kind.get("vocab", 48), kind.get("embed", E), 2.5, positions=64, position_offset=2)
    head = Head(kind.get("tied", False), bias=True, multiplier=0.5, softcap=9.0)
    return Decoder(E, (block,) * 4, embed, head, Norm(E, kind="layer", bias=True), 64)


KINDS = {
    "plain": {},
    "gqa": {"kv": 2, "qk": "head"},
    "one_kv_head": {"kv": 1},
    "row_norms": {"qk": "row", "kv": 4},
    "row_layer_norms": {"qk": "row_layer", "tied": True},
    "moe": {"moe": True},
    "parallel": {"wiring": Wiring.PARALLEL, "plain": True},
    "post": {"wiring": Wiring.POST, "tied": True},
    "narrow_embedding": {"embed": 16, "tied": True},
    "padded_vocabulary": {"vocab": 101},
    "padded_tied_vocabulary": {"vocab": 101, "tied": True},
}


def _batch(n, plan):
    groups = [GroupBatch(torch.arange(4, 4 + n), torch.tensor([[1, 2, 3, 4]], dtype=torch.int32), 4)]
    return Batch(
        token_ids=torch.arange(n) * 3,
        positions=torch.arange(n),
        query_start=torch.tensor([0, n], dtype=torch.int32),
        seq_lens=torch.tensor([n], dtype=torch.int32),
        groups=groups * len(plan.groups),
        num_tokens=n,
        num_seqs=1,
        max_query_len=n,
        max_seq_len=n,
        query_lens=[n],
        host_seq_lens=[n],
    )


def _padding(spec, tp, t):
    return sum(piece.room(tp, t) - piece.shard(tp, t)[1] for piece in spec.pieces)


def _cut(decoder, weights, tp, t, pp, p):
    """A rank's share of whole tensors."""
    out = {}
    for spec in stage_tensors(decoder, pp, p):
        x = weights[spec.name]
        if spec.shard_dim is not None and tp > 1:
            parts, at = [], 0
            for piece in spec.pieces:
                start, length = piece.shard(tp, t)
                parts.append(x.narrow(spec.shard_dim, at + start, length))
                at += piece.size
            parts.append(x.new_zeros(spec.local_shape(tp, t)).narrow(spec.shard_dim, 0, _padding(spec, tp, t)))
            x = torch.cat(parts, spec.shard_dim)
        out[spec.name] = x.clone()
    return out


def _logits(decoder, weights, tp, pp):
    """Logits of 14 tokens, computed by tp x pp ranks in threads."""
    kv_plan: KVPlan = make_kv_plan(decoder, 8)
    rooms = [(threading.Barrier(tp), [None] * tp) for _ in range(pp)]
    results, failures = {}, []

    def run(t, p, before):
        try:
            mesh = Mesh(ThreadAxis(tp, t, rooms[p]), ThreadAxis(pp, p, None))
            mine = rank_kv_plan(kv_plan, len(decoder.blocks), mesh)
            plan = make_worker_plan(tp_size=tp, tp_rank=t, pp_size=pp, pp_rank=p)
            slabs = make_slabs(mine, torch.device("cpu"))
            model = build(decoder, _cut(decoder, weights, tp, t, pp, p), plan, mine, slabs, OPS, mesh)
            hidden = model(_batch(14, mine), before)
            results[t, p] = model.logits(hidden) if mesh.pp.is_last else hidden
        except BaseException as error:
            failures.append(error)
            rooms[p][0].abort()

    for p in range(pp):
        threads = [threading.Thread(target=run, args=(t, p, results[t, p - 1] if p else None)) for t in range(tp)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
    return [results[t, pp - 1] for t in range(tp)]


@pytest.mark.parametrize("kind", KINDS)
def test_shards_say_what_the_whole_says(kind):
    decoder = decoder_of(**KINDS[kind])
    weights = random_weights(decoder, seed=3)
    (whole,) = _logits(decoder, weights, 1, 1)
    assert whole.abs().max() > 0.1
    for tp, pp in ((2, 1), (4, 1), (1, 2), (1, 3), (2, 2)):
        if KINDS[kind].get("kv") == 2 and tp == 4 and KINDS[kind].get("qk") == "row":
            continue
        for got in _logits(decoder, weights, tp, pp):
            assert torch.allclose(got, whole, atol=2e-4), f"tp={tp} pp={pp}"
