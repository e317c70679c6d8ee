"""Logits to tokens: a list of stages, one option per file.

For: every per-row option that changes which token comes out. Does not know: host rooms, layers.
Invariant: noise depends on sequence seed, position and token only. Called by: worker.
"""
