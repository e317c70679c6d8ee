"""The two sentences of the engine: StepPlan goes down to the workers, StepResult comes back, possibly one step late.

A step gives each planned row `n` query tokens (wall 1): prefill, chunk, decode and draft verification are values of n.
A result carries 0..k tokens per sequence (wall 2) and is keyed by (sequence, epoch), never by row: a row may already
belong to somebody else when the result arrives.

Order of work inside one step, on every rank::

    closes -> opens -> new_blocks -> copies -> gather rows -> forward -> sample -> write tokens into rows

The worker owns the true state of a row (tokens, num_computed, block tables); the plan only carries changes.
Lists that belong together are parallel lists, not lists of objects: 512 decodes must cost little.
"""

from dataclasses import dataclass, field

from vllm.sampling_params import SamplingParams


@dataclass(slots=True)
class RowOpen:
    """A sequence takes a row: everything the worker must know about it. Sent on admission and after preemption."""

    row: int
    seq_id: int
    epoch: int
    token_ids: list[int]
    """Every token the host knows: prompt, then emitted ones."""
    prompt_len: int
    num_computed: int
    """Tokens whose KV is already in the blocks below (a prefix hit)."""
    block_ids: list[list[int]]
    """Per KV group: block ids from position 0 on; blocks below a sliding window may be NULL_BLOCK."""
    sampling: SamplingParams
    seed: int
    """Noise seed of this sequence (64 bits); noise depends on (seed, position, token) alone."""
    max_len: int
    stop_ids: frozenset[int]
    features: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class StepPlan:
    """What the workers do in one step. `rows[i]` gets `num_query[i]` tokens; `samples[i]` says whether its last
    position yields a token (False for a chunk that does not end the known tokens).

    `fan_out` are (row, parent_row): a sibling sequence opened in this step that is not in `rows`; it samples its first
    token from the parent's logits line of this same step (n > 1: the prompt is computed once). Its RowOpen says
    num_computed == prompt_len, which is true once this step's forward pass is done; a partial last block of the prompt
    is its own, and filled by `copies` of the next plan.
    `copies` are (source block, destination block), done in every slab before the forward pass of this step.
    `new_blocks` are (row, group, ids) appended to that row's block table.
    """

    step_id: int
    rows: list[int] = field(default_factory=list)
    num_query: list[int] = field(default_factory=list)
    samples: list[bool] = field(default_factory=list)
    opens: list[RowOpen] = field(default_factory=list)
    closes: list[int] = field(default_factory=list)
    new_blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    fan_out: list[tuple[int, int]] = field(default_factory=list)
    drafts: dict[int, list[int]] = field(default_factory=dict)
    """row -> draft tokens given by the host (host-side drafters); they are part of num_query."""

    @property
    def num_tokens(self) -> int:
        """Query tokens of the step."""
        return sum(self.num_query)


@dataclass(slots=True)
class TokenLogprobs:
    """Log-probabilities at one position: ids[0] is the chosen token, then the most likely ones in falling order.

    `ranks` are 1-based ranks in the whole vocabulary. With logprobs_mode of logits kind these are logits.
    """

    ids: list[int]
    values: list[float]
    ranks: list[int]


@dataclass(slots=True)
class StepResult:
    """What came of a step. Parallel lists over the sequences that sampled: seq_ids, epochs, tokens (0..k each)."""

    step_id: int
    seq_ids: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """Index into the lists above -> one entry per token, for sequences that asked."""
    prompt_logprobs: dict[int, list[tuple[int, TokenLogprobs]]] = field(default_factory=dict)
    """seq_id -> (position, logprobs of the prompt token AT that position) for prompt positions seen in this step."""
    failed: list[tuple[int, int, str]] = field(default_factory=list)
    """(seq_id, epoch, why): sequences that failed alone, for example a logits processor that raised."""
    states: dict[int, bytes] = field(default_factory=dict)
    """seq_id -> what a head made of the sequence's hidden states; comes with its first token."""
    seconds: float = 0.0
