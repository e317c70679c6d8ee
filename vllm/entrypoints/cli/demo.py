"""`vllm demo`: the built-in model on seven prompts. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("demo",)
HELP = "complete seven prompts with the built-in demonstration model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print each prompt with its completion."""
    from vllm.entrypoints.demo import main  # why: the engine imports torch, and `vllm --help` must not

    main()
    return 0
