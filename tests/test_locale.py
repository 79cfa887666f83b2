"""Text is UTF-8 in any locale: files, names of videos, and so keys; output falls back to escapes."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

LATIN = "en_US.ISO-8859-1"
NAMES = """
import sys
from pathlib import Path
from kdtune.commands.utf8 import start_in_utf8_mode
start_in_utf8_mode()
from kdtune.clips.catalog import load_catalog
from kdtune.config.sections import DataConfig
found = load_catalog(DataConfig(dataset="folder", root=sys.argv[1]))
print(ascii(list(found["video"])))
"""


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a locale with the encoding ISO-8859-1, without Python's own variables."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("no localedef is installed: no other locale can be made")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / LATIN)], capture_output=True, check=False
    )
    if not (folder / LATIN).exists():
        pytest.skip(f"localedef makes no locale here: {made.stderr.decode(errors='replace')}")
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    rest.pop("PYTHONIOENCODING", None)
    return {**rest, "LOCPATH": str(folder), "LC_ALL": LATIN}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, check=False)


def test_the_quick_start_is_read_and_printed_in_a_latin_1_locale(latin: dict[str, str], tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "runs"))
    done = run(latin, "-m", "kdtune", "plan", "sweeps/lambda_tau.yaml", *store)
    assert done.returncode == 0, done.stderr
    assert b"Which teacher, \\u03bb" in done.stdout
    utf8 = run({**latin, "LC_ALL": "C.UTF-8"}, "-m", "kdtune", "plan", "sweeps/lambda_tau.yaml", *store)
    assert done.stdout == utf8.stdout.decode().encode("latin-1", "backslashreplace")


def test_a_video_has_the_same_name_in_every_locale(latin: dict[str, str], tmp_path: Path) -> None:
    for action in ("café", "naïve", "run"):
        for number in range(3):
            (tmp_path / action).mkdir(exist_ok=True)
            (tmp_path / action / f"é{number}.avi").write_bytes(action.encode() + bytes([number]))
    here = run({**latin, "LC_ALL": "C.UTF-8"}, "-c", NAMES, str(tmp_path))
    there = run(latin, "-c", NAMES, str(tmp_path))
    assert (there.returncode, there.stdout) == (0, here.stdout), there.stderr
    assert b"caf\\xe9" in here.stdout


def test_all_text_is_read_and_written_as_utf_8() -> None:
    """Beyond ruff's PLW1514, which goes by a value's type, check all calls of these names and all child processes."""
    missing = []
    for file in sorted((ROOT / "kdtune").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            given = {word.arg: word.value for word in call.keywords}
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
            texts = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            reads = name in ("read_text", "write_text") and (owner or not call.args)
            opens = name in ("open", "fdopen", "NamedTemporaryFile", "TextIOWrapper") and not any(
                "b" in t for t in texts
            )
            binary = owner in ("os", "av", "ClipStore", "gzip", "cls", "archive", "Image") and name == "open"
            child = owner == "subprocess" and ("text" in given or "universal_newlines" in given)
            if (((reads or opens) and not binary) or child) and "encoding" not in given:
                missing.append(f"{file.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
    assert not missing
