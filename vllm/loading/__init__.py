"""Weights from disk to device: find the folder, read its files, rename, unpack, shard, place.

For: `load_weights`, which gives the layers every tensor of this rank under our names. Does not know: what a network
computes. Invariants: no code from a model folder ever runs; a tensor that is missing, unknown or of the wrong shape
is an error that names file and tensor. Called by: worker; `resolve` by assembly.
"""
