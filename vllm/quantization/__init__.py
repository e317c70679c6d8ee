"""One file per method: which tensors replace a weight, which op eats them, which op repacks them.

For: describing a packed checkpoint. Does not know: torch, devices. Invariant: what it describes can be sized
before a byte is downloaded. Called by: planning and loading.
"""
