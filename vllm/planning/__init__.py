"""Args and facts in, a Plan out: frozen, complete, and able to explain itself.

For: every decision made once, before load. Does not know: torch, processes. Invariants: no "auto" and no None
that means a default leaves this room; what does not fit is refused with what would. Called by: assembly.
"""
