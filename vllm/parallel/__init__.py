"""Meshes of ranks and the collectives between them.

For: naming axes (tp, pp, dp, ep) and moving tensors along them. Does not know: layers, models.
Invariant: with one rank every call is free. Called by: layers, loading, worker.
"""
