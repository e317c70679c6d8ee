"""Checkpoints to placed tensors: read, rename, stack, unpack, shard, place.

For: filling a built network from files, or with seeded random numbers. Does not know: host rooms, requests.
Invariants: every parameter is filled exactly once or the load fails by name; no pickled code runs. Called by: worker.
"""
