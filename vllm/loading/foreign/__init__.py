"""Networks that we do not describe, from transformers' own code: seen on tensors without memory, then loaded.

    describe_foreign(folder, config) -> Foreign          engine process, before planning; nothing is read but config.json
    build_foreign(foreign, ...)      -> ForeignModel     worker; the same interface as layers' Model

Does not know: requests, planning. Invariants: transformers is imported only inside these functions; no code of a model
folder runs unless trust_remote_code was said; what cannot run is refused with one sentence, before weights are read.
Called by: assembly (describe), worker (build).
"""

from vllm.loading.foreign.build import build_foreign
from vllm.loading.foreign.describe import describe_foreign

__all__ = ["build_foreign", "describe_foreign"]
