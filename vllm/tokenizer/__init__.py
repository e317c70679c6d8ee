"""Text to token ids and back, one piece at a time.

For: encoding, and incremental decoding that never splits a character. Does not know: chat, requests, torch.
Invariant: the pieces joined equal the whole decoded at once. Called by: engine, chat, entrypoints.
"""

from vllm.tokenizer.detokenizer import Detokenizer
from vllm.tokenizer.loader import load
from vllm.tokenizer.stop import StopChecker
from vllm.tokenizer.tokenizer import Tokenizer

__all__ = ["Detokenizer", "StopChecker", "Tokenizer", "load"]
