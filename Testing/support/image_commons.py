"""Local stand-in of the Imaging Data Commons: an HTTP server of a folder that answers as S3 does.

The client of idc-index and its s5cmd fetch from it as from the commons: they list a series' prefix and get its objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

LISTING = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
    "<Prefix>{prefix}</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
)
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag>"
    "<Size>{size}</Size></Contents>"
)


@contextmanager
def image_commons(root: Path) -> Iterator[str]:
    """Serve ROOT/BUCKET/SERIES/FILE and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            place, query = root / unquote(address.path).strip("/"), parse_qs(address.query)
            if "list-type" in query:
                self._answer(200, _listing(place, query.get("prefix", [""])[0]))
            elif place.is_dir():
                self._answer(200, b"")
            elif not place.is_file():
                self._answer(404, b"")
            else:
                content, part = place.read_bytes(), self.headers.get("Range", "")
                first, _, last = part.removeprefix("bytes=").partition("-")
                start, end = int(first or 0), min(int(last or len(content)), len(content) - 1)
                self._answer(206 if part else 200, content[start : end + 1], f"bytes {start}-{end}/{len(content)}")

        def _answer(self, status: int, content: bytes, part: str = "") -> None:
            self.send_response(status)
            if part:
                self.send_header("Content-Range", part)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _listing(bucket: Path, prefix: str) -> bytes:
    files = [(path.relative_to(bucket).as_posix(), path) for path in sorted(bucket.rglob("*")) if path.is_file()]
    entries = "".join(
        ENTRY.format(key=escape(key), size=path.stat().st_size) for key, path in files if key.startswith(prefix)
    )
    return LISTING.format(bucket=bucket.name, prefix=escape(prefix), entries=entries).encode()
