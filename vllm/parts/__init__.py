"""Frozen descriptions of network parts: linear, norm, rope, attention, mlp, moe, state, block, decoder.

For: saying what a network is, in a form that planning, loading and layers all read. Does not know: any one
model, device or number format. Invariants: at most 12 fields a part; torch-free. Called by: models, both towers.
"""
