"""One option per file, each a Stage. `make_stages` gives them in the order in which they run."""

from vllm.sampling.lines import Stage
from vllm.sampling.stages.allowed import AllowedTokens
from vllm.sampling.stages.bad_words import BadWords
from vllm.sampling.stages.logit_bias import LogitBias
from vllm.sampling.stages.min_tokens import MinTokens
from vllm.sampling.stages.penalties import Penalties
from vllm.sampling.stages.processors import Processors


def make_stages() -> list[Stage]:
    """The options that reshape logits before temperature. Masks come after a user's code, so it cannot undo them."""
    return [Processors(), LogitBias(), AllowedTokens(), BadWords(), MinTokens(), Penalties()]
