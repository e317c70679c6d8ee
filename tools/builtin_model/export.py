"""Writes the trained weights and the configuration into the assets folder, in the form of a Llama checkpoint."""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from tools.builtin_model.model import Shape

ASSETS = Path("vllm/builtin")


def config(shape: Shape) -> dict[str, object]:
    """`config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="weights.safetensors of a training run")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    weights = {f"model.{name}": tensor for name, tensor in load_file(args.weights).items()}
    save_file(weights, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(config(Shape()), indent=2) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": [0, 2], "pad_token_id": 0, "do_sample": False}
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    print(f"{sum(t.numel() for t in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
