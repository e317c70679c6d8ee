"""Beam search on top of the engine: each round asks one token with its most likely rivals for every open beam.

The prefix cache makes a round cost one token per beam. Does not know: how tokens are computed.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from vllm.entrypoints.offline import LLMEngine, final_only
from vllm.errors import RefusedError
from vllm.inputs import TokensPrompt, TypedPrompt
from vllm.outputs import BeamSearchOutput, BeamSearchSequence, Logprob
from vllm.sampling_params import BeamSearchParams, SamplingParams

_ROUND = itertools.count()


@dataclass(slots=True)
class _Search:
    """The beams of one prompt."""

    prompt_len: int
    open: list[BeamSearchSequence]
    done: list[BeamSearchSequence] = field(default_factory=list)


class BeamSearch:
    """Keeps the `beam_width` best token sequences by summed log-probability; finished ones are length-penalised."""

    def __init__(self, engine: LLMEngine, params: BeamSearchParams) -> None:
        if params.structured_outputs is not None:
            raise RefusedError("structured_outputs with beam search is not supported.", field="structured_outputs")
        self.engine, self.params = engine, params
        parts = engine.assembled
        self.tokenizer = parts.tokenizer
        ends = parts.generation_config.get("eos_token_id")
        self.ends = {i for i in (ends if isinstance(ends, list) else [ends]) if i is not None}
        if self.tokenizer is not None and self.tokenizer.eos_token_id is not None:
            self.ends.add(self.tokenizer.eos_token_id)

    def search(self, prompts: list[TypedPrompt]) -> list[BeamSearchOutput]:
        """The best beams of each prompt."""
        searches = [self._start(p) for p in prompts]
        for _ in range(self.params.max_tokens):
            if not self._round([s for s in searches if s.open]):
                break
        return [BeamSearchOutput(sequences=self._best(s)) for s in searches]

    def _start(self, prompt: TypedPrompt) -> _Search:
        one = SamplingParams(max_tokens=1, temperature=0)
        taken = self.engine.take(f"beam-{next(_ROUND)}", prompt, final_only(one)).taken
        beam = BeamSearchSequence(tokens=list(taken.prompt_token_ids), logprobs=[])
        return _Search(len(beam.tokens), [beam])

    def _round(self, searches: list[_Search]) -> bool:
        """Grow every open beam by one token; False when none is left."""
        width, room = self.params.beam_width, self.engine.model_config.max_model_len
        for s in searches:  # why: a beam at the context's end cannot grow
            s.done += [b for b in s.open if len(b.tokens) >= room]
            s.open = [b for b in s.open if len(b.tokens) < room]
        beams = [b for s in searches for b in s.open]
        if not beams:
            return False
        rivals = self._rivals(beams, 2 * width)
        for s in searches:
            grown: list[BeamSearchSequence] = []
            for beam in s.open:
                for token, found in next(rivals).items():
                    self._grow(s, beam, token, found, grown)
            grown.sort(key=lambda b: b.cum_logprob, reverse=True)
            s.open = grown[:width]
        return True

    def _rivals(self, beams: list[BeamSearchSequence], count: int) -> Iterator[dict[int, Logprob]]:
        """For each beam the `count` most likely next tokens with their log-probabilities."""
        params = final_only(
            SamplingParams(max_tokens=1, temperature=self.params.temperature, ignore_eos=True, logprobs=count)
        )
        taken = [
            self.engine.take(f"beam-{next(_ROUND)}", TokensPrompt(prompt_token_ids=b.tokens), params, max_logprobs=-1)
            for b in beams
        ]
        for output in self.engine.run(taken):
            logprobs = output.outputs[0].logprobs
            assert logprobs is not None
            chosen = output.outputs[0].token_ids[0]
            found = dict(logprobs[0])
            if len(found) > count:  # why: the sampled token itself is listed even when it is none of the best
                found.pop(chosen)
            yield found

    def _grow(
        self, s: _Search, beam: BeamSearchSequence, token: int, found: Logprob, grown: list[BeamSearchSequence]
    ) -> None:
        longer = BeamSearchSequence(
            tokens=[*beam.tokens, token],
            logprobs=[*beam.logprobs, {token: found}],
            cum_logprob=beam.cum_logprob + found.logprob,
        )
        if token in self.ends and not self.params.ignore_eos:
            longer.finish_reason = "stop"
            s.done.append(longer)
        else:
            grown.append(longer)

    def _best(self, s: _Search) -> list[BeamSearchSequence]:
        for beam in s.open:
            beam.finish_reason = "length"
        best = sorted(s.done + s.open, key=lambda b: self._score(s, b), reverse=True)[: self.params.beam_width]
        for beam in best:
            if self.tokenizer is not None:
                beam.text = self.tokenizer.decode(beam.tokens, skip_special_tokens=self.params.skip_special_tokens)
        return best

    def _score(self, s: _Search, beam: BeamSearchSequence) -> float:
        """Summed log-probability over length to the power of the penalty; the end token does not count as length."""
        length = len(beam.tokens) - (beam.finish_reason == "stop")
        return beam.cum_logprob / max(length, 1) ** self.params.length_penalty
