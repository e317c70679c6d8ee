"""int8 at load (W8A8, dynamic): every linear map of the blocks, with one scale per weight row and one per token.

Embedding, head, router and stacked experts keep their dtype. No checkpoint says so by itself; the user asks for it.
"""

NAMES = ("int8",)
OP = "linear_int8"
"""The op that replaces `linear`; its `pack` quantizes the weight as it was loaded."""
AT_LOAD = False


def packed_bytes(rows: int, inner: int) -> int:
    """Bytes of one packed weight: a byte per element; per row a float32 scale and the int32 sum that is taken off."""
    return rows * inner + 8 * rows
