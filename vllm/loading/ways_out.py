"""The one text about a model that no hub gave: what happened, and the ways out. Called by: hub, modelscope."""

from vllm.errors import ModelNotFoundError


def not_fetched(model: str, happened: str) -> ModelNotFoundError:
    """The error for a hub id that could not be fetched. `happened` is a sentence without its full stop."""
    return ModelNotFoundError(
        f"{happened}. Ways out: (1) give a local folder, model='/path/to/{model.rpartition('/')[2]}'; "
        f"(2) set HF_ENDPOINT to a mirror that answers; (3) set VLLM_USE_MODELSCOPE=True to fetch from ModelScope; "
        f"(4) leave `model` out to run the small built-in model."
    )
