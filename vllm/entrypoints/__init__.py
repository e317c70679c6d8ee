"""The doors: LLM, the servers, the command line.

For: turning what a person or program said into requests, and outputs into answers. Does not know: steps,
blocks, tensors. Invariant: nothing below imports it. Called by: users.
"""
