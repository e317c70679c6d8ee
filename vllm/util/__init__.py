"""Ground floor: arithmetic, clocks, logging, the environment and the catalogue.

For: the few helpers every room may use. Does not know: any other room.
Invariant: imports only the standard library. Called by: everybody.
"""
