"""Parts become modules: the forward pass.

For: building and running a described network on a mesh. Does not know: architectures by name, requests,
scheduling. Invariant: a module reads its part and its shard, nothing ambient. Called by: worker.
"""
