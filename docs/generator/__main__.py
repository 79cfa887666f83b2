"""Build the documentation's site into build/site: `make docs`, or `python docs/generator`.

The pages are those of docs/ and README.md and its neighbours; parts of docs/reference/ are generated from the code. The
build fails if a link leads nowhere, if a page is missing from the navigation, or if a page would load something from
another host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import api  # noqa: E402
import commands  # noqa: E402
import configuration  # noqa: E402
from pages import BrokenLinks, nav_pages, sources, stage  # noqa: E402

CONFIG = ROOT / "zensical.toml"
STAGED, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
GENERATED = {"configuration": configuration.page, "commands": commands.page, "api": api.page}
_LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^>]*>")
_STYLE = re.compile(r"<link\b[^>]*\brel=\"?(?:stylesheet|preconnect|preload)\b[^>]*\bhref=\"?(?:https?:)?//[^>]*>")


def main() -> int:
    """Build the site, and return the exit code."""
    for folder in (STAGED, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    if odd := sorted(set(sources(ROOT)) ^ set(nav_pages(CONFIG))):
        print(f"docs: not both a page and in the navigation of {CONFIG.name}: {', '.join(odd)}", file=sys.stderr)
        return 1
    try:
        stage(ROOT, STAGED, {name: make() for name, make in GENERATED.items()})
    except BrokenLinks as error:
        print(f"docs: links that lead nowhere:\n{error}", file=sys.stderr)
        return 1
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(CONFIG)], check=False
    )
    if built.returncode:
        return 1
    foreign = [f"{page.relative_to(SITE)}: {found}" for page in SITE.rglob("*.html") for found in loaded(page)]
    if foreign:
        print("docs: pages that load from another host:", *foreign, sep="\n", file=sys.stderr)
        return 1
    print(f"docs: {SITE.relative_to(ROOT)}/index.html")
    return 0


def loaded(page: Path) -> list[str]:
    """Return the elements of a page that a browser fetches from another host."""
    text = page.read_text(encoding="utf-8")
    return [*_LOADED.findall(text), *_STYLE.findall(text)]


if __name__ == "__main__":
    sys.exit(main())
