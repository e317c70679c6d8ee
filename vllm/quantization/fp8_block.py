"""fp8 in blocks: e4m3 weights with one scale per block, e4m3 inputs with one per token and block of columns.

Only checkpoints ask for it (DeepSeek and Qwen call the scales `weight_scale_inv`, though weights are multiplied by
them); `read` lives with the formats that have it.
"""

NAMES = ("fp8_block",)
OP = "linear_fp8_block"
AT_LOAD = True
