"""The `vllm` command: one verb per file of this folder.

For: finding the verb that was asked and handing it its arguments. Does not know: what a verb does.
Invariant: only the verb that was asked is imported and describes its flags (for the general help all are imported, and
none of them imports torch at the top). A verb file has NAMES, HELP, add_arguments(parser) and run(arguments) -> exit
status. Called by: the console script.
"""

import os
import sys

from vllm.config.cli import FlexibleArgumentParser
from vllm.util.catalog import Catalogue
from vllm.version import __version__


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    verbs = Catalogue("vllm.entrypoints.cli", "command")
    asked = words[0] if words else ""
    parser = FlexibleArgumentParser(
        prog="vllm", description="Independent engine for large language models with vLLM's interface."
    )
    parser.add_argument("-v", "--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [asked] if asked in verbs else verbs.names():
        verb = verbs.load(name)
        subparser = subparsers.add_parser(name, help=verb.HELP, description=verb.HELP)
        if name == asked:
            verb.add_arguments(subparser)
        subparser.set_defaults(run=verb.run)
    arguments = parser.parse_args(words)
    try:
        status: int = arguments.run(arguments)
    except ValueError as error:
        # why: a ValueError is the user's to mend and says how; a traceback would only hide that.
        print(f"vllm {asked}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # why: `vllm ... | head` is no fault; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


if __name__ == "__main__":
    sys.exit(main())
