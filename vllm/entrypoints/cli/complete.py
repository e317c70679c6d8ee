"""`vllm complete`: let a running server go on with a text. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("complete",)
HELP = "let a running server go on with a text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which server, and how much."""
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="the server's address (default: %(default)s)")
    parser.add_argument("--model-name", help="the model to ask; default the first that is served")
    parser.add_argument("--api-key", help="the server's key; default VLLM_API_KEY or OPENAI_API_KEY")
    parser.add_argument("--max-tokens", type=int, default=128, help="most tokens of an answer (default: %(default)s)")
    parser.add_argument("-q", "--quick", nargs="+", metavar="TEXT", help="go on with one text, print the rest, leave")
    parser.add_argument("--stats", action="store_true", help="say after each answer how fast it came")


def run(arguments: argparse.Namespace) -> int:
    """Until end of input (Ctrl-D)."""
    import sys
    import time

    from vllm.entrypoints.remote import Remote, Speed, converse

    remote = Remote(arguments.url, arguments.api_key)
    model = arguments.model_name or remote.model()

    def ask(text: str) -> None:
        speed = Speed(time.monotonic())
        body = {"model": model, "prompt": text, "max_tokens": arguments.max_tokens}
        for choice in remote.stream("/completions", body, speed):
            print(choice["text"], end="", flush=True)
        print()
        if arguments.stats:
            print(f"({speed.text()})", file=sys.stderr)

    return converse(ask, arguments.quick, "> ")
