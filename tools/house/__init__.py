"""The house checks: floors, cycles, sizes, words and pinned lists. `python -m tools.house` prints them all."""
