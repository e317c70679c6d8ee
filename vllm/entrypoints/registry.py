"""`ModelRegistry`: which architectures there are. Does not know: how they run. Callers: users."""

from typing import Any, NoReturn

from vllm.errors import RefusedError


class _Registry:
    """The architectures that have a description here; others run through transformers where it has them."""

    def get_supported_archs(self) -> set[str]:
        """Names as `architectures` in config.json says them."""
        from vllm.util.catalog import Catalogue

        return set(Catalogue("vllm.models", "architecture").names())

    def register_model(self, model_arch: str, model_cls: Any) -> NoReturn:
        """Refused: a model here is a description, not a class."""
        del model_cls
        raise RefusedError(
            f"ModelRegistry.register_model({model_arch!r}): classes written for vLLM cannot run here. Describe the "
            f"network in a file of vllm/models (see CONTRIBUTING.md), or load it with model_impl='transformers'."
        )


ModelRegistry = _Registry()
