"""A small host for hand-made plans: one full-attention block pool per group, no scheduler."""

from dataclasses import dataclass, field

import torch

from vllm.executor.local import LocalExecutor
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP
from vllm.parts.mixer import Attention, Heads
from vllm.parts.tensors import tensors
from vllm.protocol.kv import KVGroup, KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.protocol.step import RowOpen, StepPlan, StepResult
from vllm.sampling_params import SamplingParams
from vllm.util.arith import cdiv
from vllm.worker.make import make_runner

torch.set_num_threads(1)


def tiny_llama(layers: int = 2, window: int | None = None, vocab: int = 97) -> Decoder:
    """A Llama of a few thousand parameters; every second layer has `window` where given."""
    hidden, heads = 32, Heads(4, 2, 8)

    def block(i: int) -> Block:
        mine = window if window and i % 2 == 0 else None
        mixer = Attention(hidden, heads, heads.dim**-0.5, Rope(8), window=mine)
        return Block(mixer, MLP(hidden, 48), Norm(hidden), Norm(hidden))

    blocks = tuple(block(i) for i in range(layers))
    return Decoder(hidden, blocks, Embedding(vocab, hidden), Head(tied=False), Norm(hidden), 512)


def random_weights(decoder: Decoder, seed: int = 0, std: float = 0.3, dtype: torch.dtype = torch.float32) -> dict:
    """Seeded normal weights by name; norms around one."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for spec in tensors(decoder):
        x = torch.randn(spec.shape, generator=g) * std
        out[spec.name] = (x + 1.0 if len(spec.shape) == 1 and "norm" in spec.name else x).to(dtype)
    return out


def make_kv_plan(decoder: Decoder, num_blocks: int = 64, block_size: int = 4, itemsize: int = 4) -> KVPlan:
    """Groups by kind, with as many slabs as the largest group has layers."""
    kinds: dict = {}
    for i, kind in enumerate(decoder.kv_kinds()):
        kinds.setdefault(kind, []).append(i)
    groups = tuple(KVGroup(kind, tuple(layers), block_size) for kind, layers in kinds.items())
    most = max(kind.elements_per_token() for kind in kinds) * block_size * itemsize
    dtype = "float32" if itemsize == 4 else "bfloat16"
    return KVPlan(groups, num_blocks, max(len(g.layers) for g in groups), most, dtype)


def make_worker_plan(**changes) -> WorkerPlan:
    """A plan for small tests on the CPU."""
    given = {
        "device": "cpu",
        "dtype": "float32",
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
        "max_model_len": 128,
        "kernels": {"*": "reference"},
    }
    return WorkerPlan(**{**given, **changes})


@dataclass
class Host:
    """Keeps blocks and rows for hand-made plans against one executor. Call `step` with (row, n) pairs."""

    executor: LocalExecutor
    kv_plan: KVPlan
    free: list[int] = field(default_factory=list)
    step_id: int = 0
    plan: StepPlan = field(default_factory=lambda: StepPlan(0))
    seqs: dict = field(default_factory=dict)
    """row -> [tokens, prompt_len, computed, block ids per group, RowOpen]"""

    def __post_init__(self):
        self.free = list(range(self.kv_plan.num_blocks - 1, 0, -1))

    def open(self, row, tokens, params=None, *, seed=7, prompt_len=None, computed=0, blocks=None, epoch=0, **kw):
        """Open a row in the next plan."""
        params = params or SamplingParams(temperature=0, max_tokens=64)
        blocks = blocks or [[] for _ in self.kv_plan.groups]
        o = RowOpen(
            row=row,
            seq_id=100 + row,
            epoch=epoch,
            token_ids=list(tokens),
            prompt_len=len(tokens) if prompt_len is None else prompt_len,
            num_computed=computed,
            block_ids=[list(b) for b in blocks],
            sampling=params,
            seed=seed,
            max_len=kw.pop("max_len", 120),
            stop_ids=kw.pop("stop_ids", frozenset()),
            features=kw.pop("features", {}),
        )
        assert not kw
        self.plan.opens.append(o)
        self.seqs[row] = [list(tokens), o.prompt_len, computed, [list(b) for b in blocks], o]
        return o

    def close(self, row, keep=False):
        """Close a row in the next plan; its blocks are free again unless kept."""
        self.plan.closes.append(row)
        seq = self.seqs.pop(row)
        if not keep:
            for ids in seq[3]:
                self.free.extend(i for i in ids if i)
        return seq

    def step(self, *asks, drafts=None, fan_out=()) -> StepResult:
        """Run one step of (row, n) asks."""
        drafts = drafts or {}
        plan = self.plan
        plan.step_id = self.step_id
        for row, n in asks:
            seq = self.seqs[row]
            draft = drafts.get(row, [])
            end = seq[2] + n
            plan.rows.append(row)
            plan.num_query.append(n)
            plan.samples.append(end == len(seq[0]) + len(draft))
            for g, group in enumerate(self.kv_plan.groups):
                new = [self.free.pop() for _ in range(cdiv(end, group.block_size) - len(seq[3][g]))]
                if new:
                    plan.new_blocks.append((row, g, new))
                    seq[3][g].extend(new)
        plan.drafts, plan.fan_out = dict(drafts), list(fan_out)
        self.step_id, self.plan = self.step_id + 1, StepPlan(0)
        self.executor.submit(plan)
        result = self.executor.collect()
        assert result.step_id == plan.step_id
        given = dict(zip(result.seq_ids, result.tokens, strict=True))
        for row, n in asks:
            seq, new = self.seqs[row], given.get(100 + row, [])
            seq[2] += n - (len(drafts[row]) + 1 - len(new) if row in drafts else 0)
            seq[0].extend(new)
        for row, _ in fan_out:
            seq = self.seqs[row]
            seq[2] = len(seq[0])
            seq[0].extend(given[100 + row])
        return result

    def tokens(self, row):
        """Tokens of a row so far."""
        return self.seqs[row][0]


def make_host(decoder=None, seed=0, block_size=4, num_blocks=64, weights=None, **changes) -> Host:
    """An executor over random weights, and a host for it."""
    decoder = decoder or tiny_llama()
    kv_plan = make_kv_plan(decoder, num_blocks, block_size)
    weights = dict(weights) if weights is not None else random_weights(decoder, seed)
    return Host(LocalExecutor.of(make_runner(decoder, weights, make_worker_plan(**changes), kv_plan)), kv_plan)
