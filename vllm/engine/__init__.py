"""The step loop and the two ends of a request's life: intake, delivery, journal.

For: turning requests into finished outputs. Does not know: torch, HTTP, which executor carries the plan.
Invariants: results are keyed by sequence and epoch; a bad request fails alone. Called by: assembly, entrypoints.
"""
