"""`vllm show`: what a model is, from its files alone. Called by: entrypoints/cli/main.py."""

import argparse
from pathlib import Path
from typing import Any

NAMES = ("show",)
HELP = "tell what a model is: network, size, context, files; --verify checks every hash; offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and how much."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="folder or name; default the built-in model")
    parser.add_argument("--revision", help="branch, tag or commit")
    parser.add_argument("--download-dir", help="cache folder; default the standard one")
    parser.add_argument("--verify", action="store_true", help="compare every file with its hash")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print it; 1 when --verify found a wrong file."""
    import json

    from vllm.loading.verify import wrong_files

    folder = _folder(arguments)
    facts = _facts(folder)
    wrong = wrong_files(folder) if arguments.verify else []
    if arguments.verify:
        facts["verify"] = {"wrong": wrong}
    if arguments.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return bool(wrong)
    for key, value in facts.items():
        if key == "files":
            for name, size in value.items():
                print(f"{'':15} {size:>14,}  {name}")
        elif key != "verify":
            print(f"{key.replace('_', ' ') + ':':15} {f'{value:,}' if isinstance(value, int) else value}")
    if arguments.verify:
        said = (
            f"wrong or missing: {', '.join(wrong)}; `vllm pull` fetches them again" if wrong else "every hash is right"
        )
        print(f"{'verify:':15} {said}")
    return bool(wrong)


def _folder(arguments: argparse.Namespace) -> Path:
    """The model's folder, without a network."""
    from vllm.loading.cache_layout import find_model
    from vllm.loading.inventory import find
    from vllm.loading.resolve import BUILT_IN

    if arguments.model is None:
        return BUILT_IN
    path = Path(arguments.model).expanduser()
    if path.is_dir():
        return find_model(path, arguments.revision)
    return find_model(find(arguments.model, arguments.download_dir).folder, arguments.revision)


def _facts(folder: Path) -> dict[str, Any]:
    from vllm.planning.describe import read_config

    config = read_config(folder)
    facts: dict[str, Any] = {"folder": str(folder), "network": ", ".join(config.get("architectures") or ["unknown"])}
    facts.update(_described(config))
    facts["stored_as"] = str(config.get("torch_dtype") or config.get("dtype") or "not said")
    quantized = config.get("quantization_config")
    if quantized:
        facts["quantized"] = quantized.get("quant_method", "yes") if isinstance(quantized, dict) else str(quantized)
    facts["context"] = config.get("max_position_embeddings") or config.get("n_positions") or "not said"
    facts["vocabulary"] = config.get("vocab_size") or "not said"
    facts["chat_template"] = "yes" if _has_template(folder) else "no"
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    facts["bytes"] = sum(sizes.values())
    facts["files"] = sizes
    return facts


def _described(config: Any) -> dict[str, Any]:
    """What our own description of the network says, when there is one."""
    from vllm.planning.describe import describe
    from vllm.planning.memory import count_parameters

    try:
        decoder = describe(config).decoder
        return {"parameters": count_parameters(decoder), "layers": len(decoder.blocks)}
    except ValueError as error:
        return {"runs": str(error).split(". ")[0].rstrip(".")}


def _has_template(folder: Path) -> bool:
    try:
        said = (folder / "tokenizer_config.json").read_text("utf-8")
    except OSError:
        said = ""
    return (folder / "chat_template.jinja").exists() or '"chat_template"' in said
