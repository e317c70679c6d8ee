"""Make the install keep the torch that is in this environment, whatever its version.

    python use_existing_torch.py && pip install -r requirements-build.txt && pip install -e . --no-build-isolation

A torch inside the supported range is always kept, and then this changes nothing. For any other (a nightly, an older
or a vendor's build) it takes the torch line out of pyproject.toml, so that pip neither checks nor replaces it; --undo
puts the line back. `vllm doctor` says later whether that torch works.
"""

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).resolve().parent / "pyproject.toml"
LINE = re.compile(r'^(?P<indent> +)(?P<off># kept: )?"(?P<requirement>torch\b[^"]*)",$', re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Keep the torch of this environment.")
    parser.add_argument("--undo", action="store_true", help="put the torch requirement back")
    parser.add_argument("--prefix", action="store_true", help="accepted and not needed")
    undo = parser.parse_args(argv).undo
    text = PROJECT.read_text()
    line = LINE.search(text)
    if line is None:
        print(f"{PROJECT} has no torch requirement that this script knows; nothing was changed", file=sys.stderr)
        return 1
    if undo:
        return rewrite(text, line, f'"{line["requirement"]}",', "pip asks for torch again")
    try:
        found = version("torch")
    except PackageNotFoundError:
        print(f"No torch in {sys.prefix}: pip will install one ({line['requirement']}). Nothing was changed.")
        return 0
    if in_range(found, line["requirement"]):
        print(f"torch {found} satisfies {line['requirement']} and will be kept. Nothing had to be changed.")
        return 0
    return rewrite(
        text,
        line,
        f'# kept: "{line["requirement"]}",',
        f"torch {found} is outside {line['requirement']}: the line is off in pyproject.toml, and pip will leave torch "
        "alone.\nThat version is not tested with this package; `vllm doctor` checks it. To undo: "
        "python use_existing_torch.py --undo",
    )


def in_range(found: str, requirement: str) -> bool:
    """Whether pip would accept `found`; a nightly or release candidate counts as outside, as it does for pip."""
    sys.path.insert(0, str(PROJECT.parent / "scripts"))
    from setup import in_range as inside

    return inside(found, requirement) and not re.search(r"(dev|a|b|rc)\d+", found.partition("+")[0])


def rewrite(text: str, line: re.Match[str], instead: str, said: str) -> int:
    changed = text[: line.start()] + line["indent"] + instead + text[line.end() :]
    tomllib.loads(changed)  # why: never leave a pyproject.toml that pip cannot read
    if changed != text:
        PROJECT.write_text(changed)
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
