"""Builds the documents as a site that needs no network: `python -m tools.house.site`, into site/ (Zensical).

    docs/ and the pages beside it ─▶ a copy whose links stay inside ─▶ zensical build --strict ─▶ site/ ─▶ a look at it

A dead link is an error, and so is a page that loads anything from elsewhere.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.house.source import ROOT

BESIDE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
NAV = {
    "Start": {"Quickstart": "quickstart", "Install": "install", "Troubleshooting": "troubleshooting"},
    "Use": {
        "Serving": "serving",
        "Offline": "offline",
        "Performance": "performance",
        "vLLM's flags": "compatibility",
        "Security": "security",
        "Known faults": "faults",
    },
    "中文": {"快速开始": "quickstart.zh-CN", "安装": "install.zh-CN", "故障排除": "troubleshooting.zh-CN"},
    "Inside": {
        "Tour": "tour",
        "Import map": "map",
        "Log": "log",
        "Contributing": "CONTRIBUTING",
        "Changes": "CHANGELOG",
        "Reporting a weakness": "SECURITY",
    },
}
CONFIG = """
[project]
site_name = "vllm, an independent implementation"
site_description = "An engine for large language models with vLLM's public interface, written from scratch"
docs_dir = "docs"
use_directory_urls = false
nav = [%s]

[project.theme]
language = "en"
font = false
"""
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(?:https?:)?//|<link[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect)[^>]*\bhref=[\"']?(?:https?:)?//"
)


def copy(into: Path) -> None:
    """The documents, with links that stay inside; what lies outside of them becomes its path."""
    shutil.copytree(ROOT / "docs", into / "docs")
    for name in BESIDE:
        shutil.copy(ROOT / name, into / "docs" / name)
    for page in (into / "docs").rglob("*.md"):
        text = page.read_text("utf-8")
        if page.name in BESIDE and page.parent == into / "docs":
            text = text.replace("](docs/", "](")
        text = re.sub(rf"\]\((?:\.\./)+({'|'.join(map(re.escape, BESIDE))})\)", r"](\1)", text)
        text = re.sub(r"\[([^\]]*)\]\((?:\.\./)+((?!pictures/)[^)]*)\)", r"`\2`", text)
        page.write_text(text, "utf-8")
    (into / "zensical.toml").write_text(CONFIG % navigation(), "utf-8")


def navigation() -> str:
    """The list of pages at the side, as TOML."""
    parts = []
    for part, pages in NAV.items():
        inside = ", ".join(f'{{"{title}" = "{page}.md"}}' for title, page in pages.items())
        parts.append(f'{{"{part}" = [{inside}]}}')
    return ", ".join(parts)


def problems(site: Path) -> list[str]:
    """What is wrong with a built site."""
    pages = sorted(site.rglob("*.html"))
    found = [] if len(pages) > 20 else [f"only {len(pages)} pages were built"]
    for page in pages:
        match = _LOADED.search(page.read_text("utf-8"))
        if match:
            found.append(f"{page.relative_to(site)} loads from elsewhere: {match[0]}")
    return found


def build(target: Path) -> list[str]:
    """Build into `target`; what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        copy(room)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(room / "zensical.toml")]
        done = subprocess.run(command, cwd=room, capture_output=True, text=True)
        if done.returncode:
            plain = re.sub(r"\033\[[0-9;]*m", "", done.stdout + done.stderr)
            return [line for line in plain.splitlines() if re.search(r"\.md:\d|Warning|Error", line)] or [plain]
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(room / "site", target)
    return problems(target)


if __name__ == "__main__":
    told = build(ROOT / "site")
    pages = len(list((ROOT / "site").rglob("*.html")))
    print("\n".join(told) or f"site/index.html: {pages} pages, no dead link, nothing loaded from elsewhere")
    sys.exit(bool(told))
