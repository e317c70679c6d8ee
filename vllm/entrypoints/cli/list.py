"""`vllm list`: the models on this machine's disk. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("list",)
HELP = "list the models in the caches of this machine, offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which cache, and how to tell."""
    parser.add_argument("--download-dir", help="cache folder; default the standard ones")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(arguments: argparse.Namespace) -> int:
    """One line per model, and the sum."""
    import json
    import time

    from vllm.loading.hub import default_cache
    from vllm.loading.inventory import held
    from vllm.util.arith import human_bytes

    items = held(arguments.download_dir)
    if arguments.json:
        print(json.dumps([item.as_json() for item in items], indent=1, ensure_ascii=False))
        return 0
    if not items:
        print(f"No model in {arguments.download_dir or default_cache()}. The built-in one is always there: vllm serve")
        return 0
    width = max(len("MODEL"), *(len(item.name) for item in items))
    print(f"{'MODEL':{width}}  {'SIZE':>10}  {'STATE':8}  {'LAST USED':16}  REVISIONS")
    for item in items:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.used))
        revisions = ", ".join(f"{'/'.join(refs) or '-'} {commit[:8]}" for commit, refs in item.revisions.items())
        state = "whole" if item.is_whole else "part"
        print(f"{item.name:{width}}  {human_bytes(item.size):>10}  {state:8}  {used:16}  {revisions or item.origin}")
    print(f"{len(items)} models, {human_bytes(sum(item.size for item in items))}")
    if any(not item.is_whole for item in items):
        print("part: not everything is here; `vllm pull MODEL` goes on where it stopped")
    return 0
