"""The one text about a model that no hub gave: what happened, and the ways out. Called by: hub, modelscope."""

from vllm.errors import ModelNotFoundError


class NotFetchedError(ModelNotFoundError):
    """A hub did not give a model. `may_pass`: asking again in `wait` seconds may help."""

    may_pass = False
    wait = 1.0


def not_fetched(model: str, happened: str) -> NotFetchedError:
    """The error for a hub id that could not be fetched. `happened` is a sentence without its full stop."""
    return NotFetchedError(
        f"{happened}. Ways out: (1) give a local folder, model='/path/to/{model.rpartition('/')[2]}'; "
        f"(2) set HF_ENDPOINT to a mirror that answers; (3) set VLLM_USE_MODELSCOPE=True to fetch from ModelScope; "
        f"(4) leave `model` out to run the small built-in model."
    )
