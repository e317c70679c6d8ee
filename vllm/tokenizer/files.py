"""What the small JSON files of a tokenizer folder say, gathered into one description.

    tokenizer_config.json  >  special_tokens_map.json  >  ids in config.json       (who wins for bos, eos, ...)
    chat_template.jinja  >  chat_templates/ and additional_chat_templates/  >  tokenizer_config.json  (per name)

Does not know: vocabularies, the `tokenizers` library. Invariant: no code of the folder runs. Callers: tokenizer/load.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm.errors import TokenizerError, sentence

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
UNLIMITED = int(1e30)  # why: the number by which others say "no limit", and which tools compare with
_MAX_JSON_BYTES = 512 * 2**20


@dataclass(slots=True)
class TokenizerFiles:
    """The folder's say. `named` maps bos_token, ... to text; `extra_special` are further special tokens."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    extra_special: list[str] = field(default_factory=list)
    added: dict[int, dict[str, Any]] = field(default_factory=dict)
    chat_templates: dict[str, str] = field(default_factory=dict)
    model_type: str = ""
    model_max_length: int = UNLIMITED
    named_ids: dict[str, int] = field(default_factory=dict)
    are_ends_said: bool = False  # whether add_bos_token / add_eos_token decide, not tokenizer.json

    @property
    def tokenizer_class(self) -> str:
        return str(self.config.get("tokenizer_class") or "")

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()


def read(folder: Path) -> TokenizerFiles:
    """Read what is there. Raises TokenizerError for a file that is not JSON."""
    files = TokenizerFiles(folder)
    files.config = read_json(folder / "tokenizer_config.json")
    special_map = read_json(folder / "special_tokens_map.json")
    for name in NAMED:
        text = _token_text(files.config.get(name, special_map.get(name)))
        if text is not None:
            files.named[name] = text
    for source in (files.config, special_map):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = source.get(key) or ()
            items = value.values() if isinstance(value, dict) else value
            for text in map(_token_text, items):
                if text is not None and text not in files.extra_special:
                    files.extra_special.append(text)
    for token_id, token in (files.config.get("added_tokens_decoder") or {}).items():
        files.added[int(token_id)] = token if isinstance(token, dict) else {"content": str(token)}
    limit = files.config.get("model_max_length")
    if isinstance(limit, (int, float)) and 0 < limit < UNLIMITED:
        files.model_max_length = int(limit)
    model = read_json(folder / "config.json")
    files.model_type = str(model.get("model_type") or "")
    for name in ("bos_token", "eos_token"):
        token_id = model.get(name + "_id")
        token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
        if name not in files.config and name not in special_map and isinstance(token_id, int):
            files.named_ids[name] = token_id
    files.chat_templates = _chat_templates(folder, files.config)
    return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, {} when there is none. Raises TokenizerError naming the file."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise TokenizerError(f"{path} is larger than {_MAX_JSON_BYTES} bytes.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise TokenizerError(sentence(error)) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold a JSON object.")
    return content


def _token_text(value: Any) -> str | None:
    """A token as text: itself, or the `content` of its description."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _chat_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Template name -> text; the unnamed one is `default`."""
    found: dict[str, str] = {}
    said = config.get("chat_template")
    if isinstance(said, str):
        found["default"] = said
    elif isinstance(said, list):
        found |= {str(one["name"]): str(one["template"]) for one in said if isinstance(one, dict) and "template" in one}
    elif isinstance(said, dict):
        found |= {str(name): str(text) for name, text in said.items()}
    legacy = read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(legacy, str):
        found.setdefault("default", legacy)
    for name in ("chat_templates", "additional_chat_templates"):
        for path in sorted((folder / name).glob("*.jinja")):
            found[path.stem] = path.read_text(encoding="utf-8")
    single = folder / "chat_template.jinja"
    if single.is_file():
        found["default"] = single.read_text(encoding="utf-8")
    return found
