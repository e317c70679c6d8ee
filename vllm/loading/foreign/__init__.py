"""Networks that we do not describe, from transformers' own code: seen on tensors without memory, then loaded.

    describe.describe_foreign(folder, config) -> Foreign    engine process, before planning; reads config.json alone
    build.build_foreign(foreign, ...) -> ForeignModel       worker; the same interface as layers' Model

Does not know: requests, planning. Invariants: transformers is imported only inside functions; no code of a model folder
runs unless trust_remote_code was said; what cannot run is refused with one sentence, before weights are read where that
can be seen. Called by: assembly (describe), worker (build).
"""
