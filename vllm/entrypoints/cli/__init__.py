"""One file per verb of the `vllm` command, found by the catalogue.

For: parsing arguments and calling the right door. Does not know: torch. Invariant: `--help` imports
neither torch nor transformers. Called by: the console script.
"""
