"""Use this checkout in place of the installed wheel, and go back: `python python_only_dev.py`, then `--quit-dev` (-q).

The whole package is Python, so nothing is compiled or copied. The installed folder is set aside where it is, and a
.pth file shows Python the checkout:

    site-packages/vllm/                   ──▶  site-packages/.vllm-set-aside/
    site-packages/vllm_python_only.pth    ──▶  CHECKOUT

Metadata and the `vllm` command of the wheel stay as they are.
"""

import argparse
import json
import shutil
import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Develop in this checkout without installing it again.")
    parser.add_argument("-q", "--quit-dev", action="store_true", help="go back to the wheel that was installed")
    quits = parser.parse_args(argv).quit_dev
    # why: this file's own folder would answer for the installed package.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]
    try:
        return leave() if quits else enter()
    except OSError as error:
        print(f"{error}; nothing else was changed. Is this environment yours to write?", file=sys.stderr)
        return 1


def enter() -> int:
    site = Path(sysconfig.get_path("purelib"))
    package, aside, pointer = places(site)
    if aside.exists():
        print(f"Already on: `import vllm` in {sys.prefix} takes {pointer.read_text().strip()}. To go back: -q")
        return 0
    try:
        installed = distribution("vllm")
    except PackageNotFoundError:
        return refuse(f"no vllm is installed in {sys.prefix}; run: {sys.executable} -m pip install {CHECKOUT}")
    if is_editable(installed):
        print(f"vllm in {sys.prefix} is an editable install: it shows its checkout already, nothing to do.")
        return 0
    if not is_ours(installed):
        return refuse(
            f"the vllm {installed.version} in {sys.prefix} is another project of that name; run first:\n"
            f"  {sys.executable} -m pip uninstall -y vllm && {sys.executable} -m pip install {CHECKOUT}"
        )
    if not (package / "__init__.py").is_file():
        return refuse(f"{package} is not there, so there is no wheel to set aside")
    package.rename(aside)
    try:
        pointer.write_text(f"{CHECKOUT}\n")
    except OSError:
        aside.rename(package)
        raise
    print(f"`import vllm` in {sys.prefix} now takes {CHECKOUT}; edits are seen at once. To go back: -q")
    return 0


def leave() -> int:
    package, aside, pointer = places(Path(sysconfig.get_path("purelib")))
    if not aside.exists():
        return refuse(f"nothing is set aside in {aside.parent}; the development mode is not on")
    if package.exists():  # why: pip installed a wheel meanwhile; the newer one is what the user wants.
        shutil.rmtree(aside)
        said = "a wheel was installed meanwhile and stays"
    else:
        aside.rename(package)
        said = f"the wheel is back in {package}"
    pointer.unlink(missing_ok=True)
    print(f"Development mode is off: {said}.")
    return 0


def places(site: Path) -> tuple[Path, Path, Path]:
    return site / "vllm", site / ".vllm-set-aside", site / "vllm_python_only.pth"


def is_ours(installed: Distribution) -> bool:
    return "independent" in (installed.metadata["Summary"] or "").lower()


def is_editable(installed: Distribution) -> bool:
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
