"""The smallest configuration that still has everything: grouped queries, a head size of its own, two layers.

For: TINY of the models, which the contract suite builds with transformers. Does not know any one model.
Called by: models.
"""

from typing import Any


def tiny(model_type: str, **changes: Any) -> dict[str, Any]:
    """A config.json of `model_type` with tiny numbers; `changes` add keys or replace them, None drops a key."""
    config: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        **changes,
    }
    return {key: value for key, value in config.items() if value is not None}
