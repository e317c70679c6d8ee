"""Looks into a built wheel: pure Python, complete, small. Usage: python tools/house/wheel.py WHEEL"""

import sys
import zipfile
from pathlib import Path

MOST_BYTES = 32 * 1024**2  # the code, and a built-in model of at most 16 MB
COMPILED = (".so", ".pyd", ".dylib", ".dll", ".a", ".o", ".cubin", ".fatbin")


def problems(wheel: Path) -> list[str]:
    """What is wrong with `wheel`, one sentence each."""
    found = []
    if not wheel.name.endswith("-py3-none-any.whl"):
        found.append(f"{wheel.name} is not a py3-none-any wheel")
    if wheel.stat().st_size > MOST_BYTES:
        found.append(f"{wheel.name} has {wheel.stat().st_size} bytes, more than {MOST_BYTES}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found += [f"{name} is compiled" for name in names if name.endswith(COMPILED)]
    found += [f"{name} does not belong in a wheel" for name in names if not name.startswith("vllm")]
    root = Path(__file__).resolve().parents[2]
    for path in (root / "vllm").rglob("*"):
        file = path.relative_to(root).as_posix()
        wanted = path.is_file() and "__pycache__" not in file and path.suffix not in (".md", ".pyc")
        if wanted and file not in names:
            found.append(f"{file} is missing from the wheel")
    return found


if __name__ == "__main__":
    built = Path(sys.argv[1])
    sentences = problems(built)
    print("\n".join(sentences) or f"{built.name}: pure Python, complete, {built.stat().st_size} bytes")
    sys.exit(bool(sentences))
