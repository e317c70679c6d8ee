"""The OpenAI-compatible HTTP door.

For: JSON in, events out. Does not know: torch, blocks, steps. Invariant: a bad field is a 400 here or never.
Called by: `vllm serve`.
"""
