"""The real server in front of an engine that only counts: `python -m tests.fakes.counting_server serve ...`."""

import sys

from tests.fakes import counting
from vllm.engine import child
from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    child.PROGRAM = counting.__name__
    sys.exit(main())
