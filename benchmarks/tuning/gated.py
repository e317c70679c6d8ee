"""`python -m benchmarks.tuning.gated [ROWS ...]`: a layer of Llama-3.1-8B with its gated map in two ways.

Microseconds a layer in a graph of six: qkv, o, gate and up with the activation, down and both norms, as an engine
chains them (attention left out), with weights beyond the cache. The library and a pass over its result stand beside the
kernel of `linear_wide.py` with each width of its tiles. Takes one GPU and half a minute.
"""

import sys

import torch
import torch.nn.functional as F

from benchmarks.tuning.timing import in_graph
from vllm.ops.triton import linear_mul, linear_wide
from vllm.ops.triton.activation import activate_mul_triton
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.norm import add_rms_norm_triton

HIDDEN, INNER, QKV, LAYERS = 4096, 14336, 6144, 6
ROWS = (72, 96, 128, 160, 192, 256, 384)


def main(names: list[str]) -> None:
    """Measure `names` rows, or all."""
    torch.manual_seed(0)
    like = {"device": "cuda", "dtype": torch.bfloat16}
    shapes = ((QKV, HIDDEN), (HIDDEN, HIDDEN), (2 * INNER, HIDDEN), (HIDDEN, INNER))
    layers = [[torch.randn(*shape, **like) * 0.02 for shape in shapes] for _ in range(LAYERS)]
    norm = torch.ones(HIDDEN, device="cuda")
    assert linear_mul.hopper_gated() is not None, "this needs a Hopper"
    for rows in [int(n) for n in names] or ROWS:
        x, stream = (torch.randn(rows, HIDDEN, **like) for _ in range(2))

        def layer(i: int, gates: int, x: torch.Tensor = x, stream: torch.Tensor = stream) -> None:
            qkv, o, up, down = layers[i]
            F.linear(add_rms_norm_triton(x, stream, norm, 1e-5)[1], qkv)
            normed = add_rms_norm_triton(F.linear(x, o), stream, norm, 1e-5)[1]
            wide = linear_wide.gated(normed, up, gates) if gates else activate_mul_triton(F.linear(normed, up), "silu")
            F.linear(wide, down)

        want = activate_mul_triton(F.linear(x, layers[0][2]), "silu").float()
        got = linear_wide.gated(x, layers[0][2]).float()
        error = float((got - want).abs().max() / want.abs().max())
        chosen = linear_wide.gates_of(INNER, -(-rows // 128), the_chip().processors)
        times = {gates: in_graph(lambda i, gates=gates: layer(i, gates), LAYERS) for gates in (0, chosen or 112, 128)}
        shown = ", ".join(f"{gates} gates {us:.1f}" for gates, us in times.items() if gates)
        print(f"{rows} rows: library {times[0]:.1f}, {shown}; chosen {chosen}, differ by {error:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
