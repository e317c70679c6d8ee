"""Embeddings: the hidden states of a prompt become one vector (or one per token) in place of a text.

PoolingParams ─▶ host: recipe of the model ─▶ request.features ─▶ device: rows' states ─▶ bytes ─▶ the caller
"""
