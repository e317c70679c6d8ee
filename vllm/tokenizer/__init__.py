"""Text to token ids and back, one piece at a time.

For: encoding, and incremental decoding that never splits a character. Does not know: chat, requests, torch.
Invariant: the pieces joined equal the whole decoded at once. Called by: engine, chat, entrypoints.
"""
