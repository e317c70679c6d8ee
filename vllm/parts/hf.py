"""A Hugging Face config.json as an object for `models/` to read. Missing keys name themselves and the architecture."""

from collections.abc import Iterator
from typing import Any

from vllm.errors import ModelLoadError


class HFConfig:
    """Read-only view of config.json: attributes are keys; `get` takes a default; nested dicts stay dicts.

    A key whose value is null counts as missing for `get` (the default is returned) but reads as None as an attribute.
    """

    __slots__ = ("_data",)

    def __init__(self, data: dict[str, Any]):
        self._data = data

    def __getattr__(self, name: str) -> Any:
        try:
            return self._data[name]
        except KeyError:
            kind = self._data.get("model_type", "unknown")
            raise ModelLoadError(
                f"config.json of this {kind} model has no {name!r}, which its architecture needs"
            ) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`, or `default` where it is missing or null."""
        value = self._data.get(name)
        return default if value is None else value

    def first(self, *names: str) -> Any:
        """The value of the first of `names` that is there and not null."""
        for name in names:
            if self._data.get(name) is not None:
                return self._data[name]
        return self.__getattr__(names[0])

    def said(self, name: str, default: Any) -> Any:
        """The value of `name` even where it is null; `default` only where it is missing."""
        return self._data.get(name, default)

    def aliased(self, **names: str) -> "HFConfig":
        """A view in which `ours="theirs"` also answers to `ours` (GPT-2 calls hidden_size n_embd)."""
        return HFConfig(
            {**{ours: self._data[their] for ours, their in names.items() if their in self._data}, **self._data}
        )

    def text(self) -> "HFConfig":
        """The text half of a multimodal config (`text_config`), or the config itself."""
        inner = self._data.get("text_config")
        return HFConfig({**inner, "architectures": self._data.get("architectures")}) if inner else self

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def raw(self) -> dict[str, Any]:
        """The whole dictionary (do not change it)."""
        return self._data
