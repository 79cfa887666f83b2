"""Official places on this machine: small archives, a server that can misbehave, and a program that unpacks RAR."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from kdtune.download.official import HMDB51, UCF101, Archive, Official
from kdtune.download.unpack import stored_rar

#: Reads what `stored_rar` writes, called as bsdtar is.
BSDTAR = """#!{python}
import sys
from pathlib import Path
options = sys.argv[1:]
data, folder = Path(options[options.index("-f") + 1]).read_bytes(), Path(options[options.index("-C") + 1])
if not data.startswith(b"Rar!"):
    sys.exit("bsdtar: Error opening archive: Unrecognized archive format")
at = 7
while at < len(data):
    kind, size = data[at + 2], int.from_bytes(data[at + 5 : at + 7], "little")
    if kind == 0x74:
        packed = int.from_bytes(data[at + 7 : at + 11], "little")
        named = int.from_bytes(data[at + 26 : at + 28], "little")
        name = data[at + 32 : at + 32 + named].decode().replace("\\\\", "/")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data[at + size : at + size + packed])
        size += packed
    at += size
"""


@dataclass
class Place:
    """A server's files, and how it answers."""

    files: dict[str, bytes]
    ranges: bool = True
    """Whether it can send a part of a file."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers to requests for a video archive break off, one each."""
    pages: set[str] = field(default_factory=set)
    """Files for which it sends a page."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """File and Range header of each request."""
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    place: Place
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place, name, asked = self.place, self.path.lstrip("/"), self.headers.get("Range")
        place.requests.append((name, asked))
        content = place.files.get(name)
        if content is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        begin = int(re.findall(r"\d+", asked)[0]) if asked and place.ranges and self.headers["If-Range"] == etag else 0
        page = name in place.pages
        body = b"<html>Too many downloads</html>" if page else content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        if place.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if place.cuts and not name.endswith(".zip") and "splits" not in name:
            self.wfile.write(body[: place.cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Place]:
    """Serve files from the loopback interface."""
    place = Place(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"place": place}))
    place.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bsdtar(folder: Path) -> None:
    """Put a program of that name into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "bsdtar").write_text(BSDTAR.replace("{python}", sys.executable), encoding="utf-8")
    (folder / "bsdtar").chmod(0o755)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def small_ucf101(mark: bytes = b"one") -> dict[str, bytes]:
    """Return the archives of 12 videos of 2 classes, with lists in UCF101's format."""
    videos = [f"{action}/v_{action}_g{group:02d}_c01.avi" for action in ("Run", "Sit") for group in range(1, 7)]
    parts = {"test": [v for v in videos if "g01" in v], "train": [v for v in videos if "g01" not in v]}
    lists = {"classInd.txt": b"1 Run\n2 Sit\n"}
    for split in (1, 2, 3):
        for part, names in parts.items():
            lists[f"{part}list{split:02d}.txt"] = "".join(f"{name}\n" for name in names).encode()
    return {
        UCF101.videos.name: stored_rar({f"UCF-101/{name}": (name.encode() + mark) * 300 for name in videos}),
        UCF101.lists.name: zipped({f"ucfTrainTestlist/{name}": content for name, content in lists.items()}),
    }


def small_hmdb51() -> dict[str, bytes]:
    """Return the archives of 8 videos of 2 classes, an archive for each class, with lists in HMDB51's format."""
    inner, lists = dict[str, bytes](), dict[str, bytes]()
    for action in ("run", "sit"):
        names = [f"film{number}_{action}_f_cm_np1_ba_bad_0.avi" for number in range(4)]
        inner[f"{action}.rar"] = stored_rar({f"{action}/{name}": name.encode() for name in names})
        for split in (1, 2, 3):
            text = "".join(f"{name} {2 if number == 0 else 1} \n" for number, name in enumerate(names))
            lists[f"testTrainMulti_7030_splits/{action}_test_split{split}.txt"] = text.encode()
    return {HMDB51.videos.name: stored_rar(inner), HMDB51.lists.name: stored_rar(lists)}


def official(real: Official, place: Place, **changes: Any) -> Official:
    """Return a data set like `real`, whose places are those of `place` (a missing file first), with its small files."""

    def archive(old: Archive) -> Archive:
        content = place.files[old.name]
        digest = hashlib.sha256(content).hexdigest() if old.sha256 else ""
        urls = (f"{place.url}/gone/{old.name}", f"{place.url}/{old.name}")
        return replace(old, urls=urls, size=len(content), sha256=digest)

    count = 12 if real.dataset == "ucf101" else 8
    small = {"videos": archive(real.videos), "lists": archive(real.lists), "unpacked": 10_000, "classes": 2}
    return replace(real, **{**small, "count": count, **changes})
