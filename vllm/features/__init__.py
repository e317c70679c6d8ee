"""One folder per feature: manifest.py, host.py, device.py, plugged in at the eight seams.

For: LoRA, structured output, speculation and their like. Does not know: other features.
Invariant: absent means not in the list; each pair is run or refused with a sentence. Called by: assembly.
"""
