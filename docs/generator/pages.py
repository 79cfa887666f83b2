"""Copy the documentation into one folder, with links that are right there, and report each link that leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

#: Page in the site → file in the repository, for files outside of docs/.
TOP = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "team_server.md": "mlflow/README.md",
}
#: Folder in the site for all other files of the repository that a page links to or shows.
FILES = "files"

#: Place of a generated part. What it holds in the repository tells readers there how to get it.
_GENERATED = re.compile(r"<!-- generated: (?P<name>\w+) -->.*?<!-- end -->", re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s]+)(\))")
_OTHER_PLACE = re.compile(r"[a-z][a-z+.-]*:|#", re.IGNORECASE)


class BrokenLinks(Exception):
    """Links that lead nowhere, one in a line: file, line, target."""


def nav_pages(config: Path) -> list[str]:
    """Return the pages that the navigation of `config` (zensical.toml) lists, in its order."""

    def below(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for part in entry.values() if isinstance(entry, Mapping) else entry:
                yield from below(part)

    return list(below(tomllib.loads(config.read_text(encoding="utf-8"))["project"]["nav"]))


def sources(root: Path) -> dict[str, str]:
    """Return each page of the site and its file in the repository. The pages of docs/ keep their names."""
    docs = root / "docs"
    return TOP | {path.relative_to(docs).as_posix(): path.relative_to(root).as_posix() for path in docs.rglob("*.md")}


def stage(root: Path, to: Path, generated: Mapping[str, str]) -> None:
    """Write all pages into `to`, with the `generated` parts (name → text) in the places that ask for them.

    A link between two pages leads to the page. Any other linked file of the repository is copied into the site,
    and so are styles. Raises BrokenLinks with all links to files that do not exist.
    """
    pages = sources(root)
    site_of = {file: page for page, file in pages.items()}
    problems: list[str] = []
    for page, file in pages.items():
        staged = _Staged(root, to, page, file, site_of, problems)
        text = _GENERATED.sub(lambda place: generated[place["name"]], staged.text())
        (to / page).parent.mkdir(parents=True, exist_ok=True)
        (to / page).write_text(text, encoding="utf-8")
    for style in (root / "docs").glob("*.css"):
        shutil.copyfile(style, to / style.name)
    if problems:
        raise BrokenLinks("\n".join(problems))


class _Staged:
    """One page on its way from the repository into the site."""

    def __init__(
        self, root: Path, to: Path, page: str, file: str, site_of: Mapping[str, str], problems: list[str]
    ) -> None:
        self.root, self.to, self.page, self.file = root, to, page, file
        self.site_of, self.problems = site_of, problems

    def text(self) -> str:
        """Return the page with its links rewritten. Code, fenced or indented, stays as it is."""
        lines, fenced = [], False
        for number, line in enumerate((self.root / self.file).read_text(encoding="utf-8").splitlines(), start=1):
            fenced ^= line.lstrip().startswith("```")
            if fenced or line.startswith("    "):
                lines.append(line)
            else:
                lines.append(_LINK.sub(lambda link, at=number: self._link(link, at), line))
        return "\n".join(lines) + "\n"

    def _link(self, link: re.Match[str], line: int) -> str:
        before, target, after = link.groups()
        if _OTHER_PLACE.match(target):
            return link.group()
        path, mark, anchor = target.partition("#")
        file = os.path.normpath(PurePosixPath(self.file).parent / path)
        if file in self.site_of:
            return f"{before}{self._from_here(self.site_of[file])}{mark}{anchor}{after}"
        if file.startswith("..") or not (self.root / file).is_file():
            self.problems.append(f"{self.file}:{line}: {target} is no file of this repository")
            return link.group()
        copy = self.to / FILES / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / file, copy)
        return f"{before}{self._from_here(f'{FILES}/{file}')}{after}"

    def _from_here(self, place: str) -> str:
        return os.path.relpath(place, PurePosixPath(self.page).parent)
