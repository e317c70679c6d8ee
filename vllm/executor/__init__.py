"""Carries a StepPlan to every rank and a StepResult back.

For: one call in the same process, or messages to worker processes. Does not know: what is in a plan.
Invariant: every rank sees the same plans in the same order. Called by: assembly.
"""
