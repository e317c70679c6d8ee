"""The words the two towers share: requests, sequences, steps, KV kinds, facts, events, seams, wire.

For: data that crosses a wall. Does not know: who sends or reads it. Invariants: no torch, no behaviour beyond
checks of its own fields. Called by: both towers.
"""
