"""From config.json to transformers' configuration object, with every refusal that config.json alone can justify.

Does not build networks. Invariant: code of a model folder is imported only with trust_remote_code.
Called by: skeleton.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vllm.errors import ModelLoadError, RefusedError, UnknownArchitectureError, nearest, quoted
from vllm.util.catalog import Catalogue

# why: layer_types as transformers spells them; the first two are attention over the paged cache
_PAGED = ("full_attention", "sliding_attention")
_RUN_FLAGS = (
    *("attn_implementation", "attn_implementation_internal", "attn_implementation_autoset"),
    *("experts_implementation", "experts_implementation_internal", "use_kernels", "torchscript", "use_cache"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "use_return_dict"),
)


def attribute(thing: Any, name: str, default: Any = None) -> Any:
    """What transformers' object says under `name`, or `default`: its classes differ in what they have."""
    return getattr(thing, name, default)


def make_config(folder: Path, data: dict[str, Any], trust_remote_code: bool) -> Any:
    """The configuration object of `data` (config.json with overrides). Raises ModelLoadError, RefusedError."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type, auto_map = data.get("model_type"), data.get("auto_map") or {}
    if "quantization_config" in data:
        method = (data["quantization_config"] or {}).get("quant_method", "unknown")
        raise refused(f"The checkpoint is quantized ({quoted(method)}), which the transformers fallback does not read.")
    try:
        if trust_remote_code and "AutoConfig" in auto_map:
            kind = type(AutoConfig.from_pretrained(folder, trust_remote_code=True))
        elif model_type in CONFIG_MAPPING:
            kind = CONFIG_MAPPING[model_type]
        else:
            raise _unknown(data)
        return kind.from_dict(without_run_flags(data))
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"transformers cannot read the config.json of this {quoted(model_type)} model: {in_one_line(error)}"
        ) from None


def without_run_flags(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of `data` without what says how to run a network rather than what it is; nested configurations too.

    why: a folder must not choose kernels (transformers would fetch some from a hub), nor ask for outputs nobody reads.
    """
    kept = {key: value for key, value in data.items() if key.lstrip("_") not in _RUN_FLAGS}
    return {key: without_run_flags(value) if isinstance(value, dict) else value for key, value in kept.items()}


def model_class(folder: Path, config: Any, data: dict[str, Any], trust_remote_code: bool) -> Any:
    """The class of the causal language model that config.json asks for. Raises RefusedError, ModelLoadError."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    name = str((data.get("architectures") or [""])[0])
    auto_map = data.get("auto_map") or {}
    if trust_remote_code and "AutoModelForCausalLM" in auto_map:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        return get_class_from_dynamic_module(auto_map["AutoModelForCausalLM"], str(folder))
    _check_kind(name, config)
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if found is None:
        raise _unknown(data)
    if name and name != found.__name__:
        theirs = attribute(transformers, name)
        if theirs is None:
            raise _unknown(data)
        if not name.endswith(("ForCausalLM", "LMHeadModel")):
            raise refused(f"{name} does not generate text (it is not a causal language model).")
        return theirs
    return found


def _check_kind(name: str, config: Any) -> None:
    """Refuse what is no decoder over text."""
    if attribute(config, "is_encoder_decoder", False):
        raise refused(f"{name} is an encoder-decoder, and only decoders are served.")
    if config.get_text_config() is not config and not name.endswith("ForCausalLM"):
        raise refused(f"{name} reads more than text (images, sound), which the transformers fallback cannot feed it.")
    text = config.get_text_config()
    odd = sorted(set(attribute(text, "layer_types") or ()) - set(_PAGED))
    if odd:
        raise refused(
            f"{name} has layers of type {', '.join(odd)}; the transformers fallback runs only layers that attend to "
            f"all earlier tokens or to a sliding window."
        )


def _unknown(data: dict[str, Any]) -> UnknownArchitectureError:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = str((data.get("architectures") or [data.get("model_type")])[0])
    known = {*Catalogue("vllm.models").names(), *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    code = ""
    if data.get("auto_map"):
        code = " Its config.json points to code of its own, which is run only with trust_remote_code=True."
    return UnknownArchitectureError(
        f"Architecture {quoted(name)} is known neither here nor to the installed transformers."
        f"{nearest(name, known)}{code}"
    )


def refused(why: str) -> RefusedError:
    """The refusal of a model, with the reason in one sentence."""
    return RefusedError(why, field="model")


def in_one_line(error: Exception) -> str:
    """The start of an error's text, without line breaks."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def parse(text: str) -> dict[str, Any]:
    """The dictionary of `Foreign.config`."""
    data: dict[str, Any] = json.loads(text)
    return data
