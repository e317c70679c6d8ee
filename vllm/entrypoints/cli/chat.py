"""`vllm chat`: talk to a running server. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("chat",)
HELP = "chat with a running server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which server, and how to begin."""
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="the server's address (default: %(default)s)")
    parser.add_argument("--model-name", help="the model to ask; default the first that is served")
    parser.add_argument("--api-key", help="the server's key; default VLLM_API_KEY or OPENAI_API_KEY")
    parser.add_argument("--system-prompt", help="what the model is told before everything else")
    parser.add_argument("-q", "--quick", nargs="+", metavar="MESSAGE", help="send one message, print the answer, leave")
    parser.add_argument("--max-tokens", type=int, help="most tokens of an answer")
    parser.add_argument("--stats", action="store_true", help="say after each answer how fast it came")


def run(arguments: argparse.Namespace) -> int:
    """Until end of input (Ctrl-D)."""
    import sys
    import time

    from vllm.entrypoints.remote import Remote, Speed, converse

    remote = Remote(arguments.url, arguments.api_key)
    model = arguments.model_name or remote.model()
    messages = [{"role": "system", "content": arguments.system_prompt}] if arguments.system_prompt else []
    if arguments.quick is None and sys.stdin.isatty():
        print(f"Talking to {model}. Ctrl-C ends an answer, Ctrl-D the conversation.")

    def ask(text: str) -> None:
        turn = [*messages, {"role": "user", "content": text}]
        body = {"model": model, "messages": turn}
        if arguments.max_tokens is not None:
            body["max_tokens"] = arguments.max_tokens
        speed, said, is_thinking = Speed(time.monotonic()), "", False
        for choice in remote.stream("/chat/completions", body, speed):
            delta = choice["delta"]
            thought = delta.get("reasoning")
            if thought:
                print("" if is_thinking else "[thinks] ", thought, sep="", end="", flush=True)
                is_thinking = True
            if delta.get("content"):
                print("\n" if is_thinking else "", delta["content"], sep="", end="", flush=True)
                said, is_thinking = said + delta["content"], False
        print()
        messages[:] = [*turn, {"role": "assistant", "content": said}]
        if arguments.stats:
            print(f"({speed.text()})", file=sys.stderr)

    return converse(ask, arguments.quick, "> ")
