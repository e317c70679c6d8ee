"""The fingerprint executor: a worker without arithmetic, in which every accounting error becomes a wrong token.

Each KV slot stores a fingerprint of everything that was read, through the block tables, before it was written; a token
is a hash of all slots read. So a stale block, a wrong table entry, a lost copy, a prefix that is not ours or a window
that was cut too far changes the tokens of the sequence that suffered it. `reference` computes the same request alone,
on plain lists. There is no torch here and no model.

It also checks what a real worker could not survive: writes into blocks that others hold, rows opened twice, too many
tokens in a step.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vllm.protocol.kv import NULL_BLOCK, KVPlan
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import EmbedSpan, Request
from vllm.protocol.step import RowOpen, StepPlan, StepResult, TokenLogprobs

VOCAB = 50


def mix(*parts: object) -> int:
    """A 61-bit hash of numbers (and tuples of them), the same in every process."""
    return hash(parts) & ((1 << 61) - 1)


def contents(request: Request) -> list[int]:
    """What stands at each prompt position: the token id, or a number made of the embedding there."""
    out: list[int] = []
    for span in request.spans:
        if isinstance(span, EmbedSpan):
            seed = int.from_bytes(span.content_hash[:7], "little")
            out += [mix(seed, i) for i in range(span.num_tokens)]
        else:
            out += span.token_ids
    return out


def draw(seen: int, seed: int, position: int, num_output: int, min_tokens: int, stop_ids: frozenset[int]) -> int:
    """The token at `position` after everything in `seen`; end tokens are masked below `min_tokens`."""
    salt = 0
    while True:
        token = mix(seen, seed & 0xFFFF, position, salt) % VOCAB
        if num_output >= min_tokens or token not in stop_ids:
            return token
        salt += 1


def reference(request: Request, index: int, plan: KVPlan) -> list[int]:
    """The output of sibling `index` of a request that runs alone, on plain lists, in one go."""
    values: list[list[int]] = [[] for _ in plan.groups]
    tokens = contents(request)
    adapter = _adapter(request.features)
    prompt_len = len(tokens)
    out: list[int] = []
    while True:
        pos = len(values[0])
        read = tuple(tuple(v[_first(g.kind, pos) :]) for v, g in zip(values, plan.groups, strict=True))
        seen = mix(read, tokens[pos], pos, adapter)
        for g, v in enumerate(values):
            v.append(mix(seen, g))
        if pos + 1 < len(tokens):
            continue
        token = draw(seen, request.seeds[index], pos + 1, len(out), request.sampling.min_tokens, request.stop_ids)
        out.append(token)
        tokens.append(token)
        stopped = token in request.stop_ids and len(out) > request.sampling.min_tokens
        if stopped or prompt_len + len(out) >= request.max_len:
            return out


def _adapter(features: Mapping[str, object]) -> int:
    return mix(*map(ord, str(features.get("adapter_id", ""))))


def _first(kind: object, pos: int) -> int:
    return kind.first_needed(pos)  # type: ignore[attr-defined]


@dataclass
class Row:
    """A row of the worker's state."""

    opened: RowOpen
    tokens: list[int]
    contents: list[int]
    tables: list[list[int]]
    computed: int
    adapter: int
    done: bool = False


@dataclass
class FingerprintExecutor:
    """Executor of fingerprints. `lazy`: a plan is carried out when it is collected, so one that the engine changes
    after handing it over goes wrong. `zero_rate`: how often a live row gives no token in a step."""

    kv: KVPlan
    limits: SchedulerPlan
    seed: int = 0
    lazy: bool = False
    zero_rate: float = 0.0

    def __post_init__(self) -> None:
        self.slots = {(b, i): mix(7, b, i) for b in range(self.kv.num_blocks) for i in range(self._longest())}
        self.rows: dict[int, Row] = {}
        self.pending: deque[StepPlan] = deque()
        self.results: deque[StepResult] = deque()
        self.random = random.Random(self.seed)
        self.num_poisoned = 0
        self.closed = False
        self.is_held: Callable[[int], bool] = lambda block: True
        """Whether the host still holds a block; a test that owns the host sets it."""

    def _longest(self) -> int:
        return max(g.block_size for g in self.kv.groups)

    # -- the door ------------------------------------------------------------------------------------------------

    def submit(self, plan: StepPlan) -> None:
        assert not self.closed
        assert len(self.pending) + len(self.results) <= self.limits.run_ahead, "more plans in flight than agreed"
        if self.lazy:
            self.pending.append(plan)
        else:
            self.results.append(self.run(plan))

    def collect(self) -> StepResult:
        if self.pending:
            return self.run(self.pending.popleft())
        return self.results.popleft()

    def prepare(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True

    def poison(self, blocks: list[int]) -> None:
        """These blocks belong to nobody: whoever reads them gets nonsense."""
        for block in blocks:
            self.num_poisoned += 1
            for i in range(self._longest()):
                self.slots[block, i] = mix(13, self.num_poisoned, i)

    # -- one step ------------------------------------------------------------------------------------------------

    def run(self, plan: StepPlan) -> StepResult:
        """closes, opens, new blocks, copies, then the rows."""
        for row in plan.closes:
            del self.rows[row]
        for opened in plan.opens:
            self._open(opened)
        for row, group, blocks in plan.new_blocks:
            assert row in plan.rows, f"row {row} got blocks in a step that it is not in"
            self.poison(blocks)
            self.rows[row].tables[group] += blocks
        longest = self._longest()
        for source, target in plan.copies:
            for i in range(longest):
                self.slots[target, i] = self.slots[source, i]
        self._check(plan)
        result = StepResult(plan.step_id)
        seen_by_row: dict[int, int] = {}
        for row, n, samples in zip(plan.rows, plan.num_query, plan.samples, strict=True):
            self._run_row(row, n, samples, plan, result, seen_by_row)
        for row, parent in plan.fan_out:
            state = self.rows[row]
            assert state.computed == len(state.tokens), "a sibling must know its whole prompt to be computed"
            self._give(state, [seen_by_row[parent]], result)
        if self.random.random() < 0.3:  # the order of a result means nothing
            order = self.random.sample(range(len(result.seq_ids)), len(result.seq_ids))
            result.seq_ids = [result.seq_ids[i] for i in order]
            result.epochs = [result.epochs[i] for i in order]
            result.tokens = [result.tokens[i] for i in order]
            result.logprobs = {order.index(i): found for i, found in result.logprobs.items()}
        return result

    def _open(self, o: RowOpen) -> None:
        assert o.row not in self.rows and 0 <= o.row < self.limits.max_num_seqs, f"row {o.row} is taken or unknown"
        for g, table in enumerate(o.block_ids):
            self.poison([b for b in table[-(-o.num_computed // self.kv.groups[g].block_size) :] if b != NULL_BLOCK])
        known = list(o.token_ids)
        inside = o.features.get("contents", ())  # embeddings come beside the ids, as a feature would bring them
        assert isinstance(inside, tuple)
        known[: len(inside)] = inside
        tables = [list(table) for table in o.block_ids]
        self.rows[o.row] = Row(o, list(o.token_ids), known, tables, o.num_computed, _adapter(o.features))

    def _check(self, plan: StepPlan) -> None:
        assert plan.num_tokens <= self.limits.max_num_batched_tokens, "the budget was not kept"
        assert len(self.rows) <= self.limits.max_num_seqs
        assert len(set(plan.rows)) == len(plan.rows), "a row is in the step twice"
        for n in plan.num_query:
            assert n > 0
        for table in (t for state in self.rows.values() for t in state.tables):
            for block in table:
                assert 0 <= block < self.kv.num_blocks

    def _run_row(
        self, row: int, n: int, samples: bool, plan: StepPlan, result: StepResult, seen_by_row: dict[int, int]
    ) -> None:
        state = self.rows[row]
        if state.done:
            return  # masked: nothing is written and nothing comes back
        o = state.opened
        start, known = state.computed, len(state.tokens)
        fresh = known - start
        assert fresh >= 1, "a row was asked for tokens it does not have"
        if n < fresh:
            assert not samples, "a chunk that does not end the known tokens cannot sample"
        seen: list[int] = []
        for pos in range(start, min(start + n, known)):
            seen.append(self._compute(state, pos, state.contents[pos]))
        wanted = o.sampling.prompt_logprobs
        if wanted is not None:
            places = range(start + 1, min(start + n + 1, o.prompt_len))
            pieces = [(p, TokenLogprobs([state.tokens[p]], [-1.0], [1])) for p in places]
            if pieces:
                result.prompt_logprobs[o.seq_id] = pieces
        if not samples:
            state.computed = start + n
            return
        assert n >= fresh
        seen_by_row[row] = seen[-1]
        drafts = n - fresh
        position = len(state.tokens)
        run = [seen[-1]]
        # The drafts: some of them right, the rest wrong. A right one is computed like any token; a wrong one leaves
        # its traces in the cache, where the next step must write over them.
        right = self.random.randint(0, drafts)
        tokens = [self._draw(state, run[-1], position)]
        for i in range(drafts):
            pos = position + i
            if pos >= o.max_len - 1 or self._stops(state, tokens[-1], len(tokens)):
                break
            if i < right:
                run.append(self._compute(state, pos, tokens[-1]))
                tokens.append(self._draw(state, run[-1], pos + 1, len(tokens)))
            else:
                self._compute(state, pos, tokens[-1] + 1000)
        self._give(state, run, result)

    def _stops(self, state: Row, token: int, ahead: int = 0) -> bool:
        num_output = len(state.tokens) - state.opened.prompt_len + ahead
        return token in state.opened.stop_ids and num_output > state.opened.sampling.min_tokens

    def _draw(self, state: Row, seen: int, position: int, ahead: int = 0) -> int:
        o = state.opened
        num_output = len(state.tokens) + ahead - o.prompt_len
        return draw(seen, o.seed, position, num_output, o.sampling.min_tokens, o.stop_ids)

    def _give(self, state: Row, run: list[int], result: StepResult) -> None:
        """Tokens of one row, cut where it ends."""
        o = state.opened
        if self.random.random() < self.zero_rate:
            run = []
        new: list[int] = []
        for seen in run:
            token = self._draw(state, seen, len(state.tokens))
            state.tokens.append(token)
            state.contents.append(token)
            new.append(token)
            if self._stops(state, token) or len(state.tokens) >= o.max_len:
                state.done = True
                break
        state.computed = len(state.tokens) - 1
        result.seq_ids.append(o.seq_id)
        result.epochs.append(o.epoch)
        result.tokens.append(new)
        if o.sampling.logprobs is not None:
            found = [TokenLogprobs([t], [-float(t)], [1]) for t in new]
            result.logprobs[len(result.seq_ids) - 1] = found

    def _compute(self, state: Row, pos: int, token: int) -> int:
        """Read every slot before `pos`, write the slot of `pos` in each group; returns what was seen."""
        read = []
        for g, group in enumerate(self.kv.groups):
            table, size = state.tables[g], group.block_size
            slots = []
            for p in range(_first(group.kind, pos), pos):
                assert table[p // size] != NULL_BLOCK, "a null block was read"
                slots.append(self.slots[table[p // size], p % size])
            read.append(tuple(slots))
        seen = mix(tuple(read), token, pos, state.adapter)
        for g, group in enumerate(self.kv.groups):
            table, size = state.tables[g], group.block_size
            if pos // size < len(table):  # past the end of its blocks a row writes to the null block
                block = table[pos // size]
                assert block != NULL_BLOCK, "a token was written into the null block"
                assert self.is_held(block), "a step wrote into a block that is free"
                self.slots[block, pos % size] = mix(seen, g)
            else:
                assert pos >= state.opened.max_len - 1, "a row has no block for its token"
        return seen
