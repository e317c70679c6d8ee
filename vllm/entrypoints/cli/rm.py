"""`vllm rm`: remove models from the cache, after a look. Called by: entrypoints/cli/main.py."""

import argparse
import sys

NAMES = ("rm",)
HELP = "remove models from the cache, after asking; never what a process has open"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names as `vllm list` prints them")
    parser.add_argument("--revision", help="only this branch, tag or commit")
    parser.add_argument("--download-dir", help="cache folder; default the standard ones")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="also when a process has files of it open")


def run(arguments: argparse.Namespace) -> int:
    """Say what would go, ask, remove."""
    from vllm.errors import RefusedError
    from vllm.loading.inventory import find, remove, users
    from vllm.util.arith import human_bytes

    items = [find(name, arguments.download_dir) for name in dict.fromkeys(arguments.models)]
    for item in items:
        busy = [] if arguments.force else users(item.folder)
        if busy:
            raise RefusedError(
                f"{item.name} is in use by process {', '.join(map(str, busy[:5]))}; end it first, or say --force",
                field="model",
            )
        part = f" (revision {arguments.revision})" if arguments.revision else ""
        print(f"{item.name}{part}: {human_bytes(item.size)} in {item.folder}")
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise RefusedError("nobody is there to ask; say --yes to remove", field="yes")
        if input("Remove? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 1
    print(f"{human_bytes(sum(remove(item, arguments.revision) for item in items))} freed")
    return 0
