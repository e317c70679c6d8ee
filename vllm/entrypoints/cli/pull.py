"""`vllm pull`: a model into the standard cache, whole and checked. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("pull",)
HELP = "fetch a model from a hub, a mirror, ModelScope, an address or a folder; goes on where it broke off"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, and where to."""
    parser.add_argument("model", metavar="MODEL", help="hub id, address (https://...), or folder")
    parser.add_argument("--revision", help="branch, tag or commit")
    parser.add_argument("--download-dir", help="cache folder; default the standard one (HF_HOME)")
    parser.add_argument("--hf-token", help="token; default HF_TOKEN, or that of `hf auth login`")
    parser.add_argument("--name", help="name to keep a folder or an address by, such as group/model")
    parser.add_argument("--load-format", default="auto", help="auto, safetensors or pt: which kind of weight files")


def run(arguments: argparse.Namespace) -> int:
    """Fetch it and say how to use it."""
    from vllm.loading.pull import pull
    from vllm.util.arith import human_bytes

    name, folder = pull(
        arguments.model,
        arguments.revision,
        arguments.download_dir,
        arguments.hf_token,
        arguments.name,
        arguments.load_format,
    )
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    print(f"{name}: {human_bytes(size)}, every hash right, in {folder}")
    print(f"Now: vllm serve {folder if arguments.download_dir else name}")
    return 0
