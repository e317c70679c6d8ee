"""Sizes of steps with chunks of prompts beside decodes, where such steps are recorded: the scheduler fills one, the
worker has a recording of it.

    total | decodes, and idle lines up to `lines_for` | chunks of prompts, and idle tokens up to the total |

Where the library's products take as long for fewer tokens (an H200, 8B: 448 longer than 512, 704 nearly as long as
1,024), there is no size.
"""

TOTALS = (64, 128, 192, 256, 320, 384, 480, 512, 640, 1024)
DECODES = (8, 32, 64, 128, 256)


def lines_for(decodes: int) -> int | None:
    """Lines for so many decodes in a recorded step; None where they are too many."""
    return next((n for n in DECODES if n >= decodes), None)
