"""Accounting of the KV cache: blocks, reference counts, prefix index, groups, tiers.

For: who owns which block. Does not know: tensors, devices, requests' contents beyond hashes. Invariants:
check() holds whenever the engine is idle; null block 0 is never owned. Called by: scheduler, engine.
"""
