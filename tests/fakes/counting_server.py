"""The real server in front of an engine that only counts: `python -m tests.fakes.counting_server serve ...`.

FAKE_PROFILE in the environment names a file for cProfile's figures of the server's own thread.
"""

import cProfile
import os
import sys

from tests.fakes import counting
from vllm.engine import child
from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    child.PROGRAM = counting.__name__
    file = os.environ.get("FAKE_PROFILE")
    if not file:
        sys.exit(main())
    profile = cProfile.Profile()
    try:
        status = profile.runcall(main)
    finally:
        profile.dump_stats(file)
    sys.exit(status)
