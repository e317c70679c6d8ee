"""`python -m vllm ...`: the command for a Python whose scripts are not on the PATH."""

import sys

from vllm.entrypoints.cli.main import main

sys.exit(main())
