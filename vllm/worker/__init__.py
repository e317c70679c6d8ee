"""One step on one device: apply the plan to rows, gather a batch, run, sample, answer.

For: state that lives in rows and the static memory under it. Does not know: host rooms, features by name.
Invariants: a request is never a reason to allocate; dummy and real rows run the same function. Called by: executor.
"""
