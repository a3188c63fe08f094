"""Serve a folder by the API of S3, each request delayed, as an object store in the same region answers.

    python -m benchmarks.slow_store FOLDER --port 9123 --milliseconds 20

Only what reads need: GET, also of ranges, and HEAD. Keys are paths below FOLDER; the bucket may have any name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


async def serve(folder: Path, port: int, seconds: float) -> None:
    """Serve until the process ends."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await asyncio.sleep(seconds)
                for part in _answer(folder, head):
                    writer.write(part)
                await writer.drain()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


def _answer(folder: Path, head: str) -> list[bytes]:
    method, target, _ = head.split("\r\n", 1)[0].split(" ")
    path = folder / unquote(target.split("?")[0]).lstrip("/").partition("/")[2]
    if not path.is_file():
        return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
    size = path.stat().st_size
    start, end, status = 0, size, "200 OK"
    if found := _RANGE.search(head.lower()):
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
        status = "206 Partial Content"
    fields = {
        "Content-Length": str(end - start),
        "Content-Range": f"bytes {start}-{end - 1}/{size}",
        "ETag": f'"{size}-{path.stat().st_mtime_ns}"',
        "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    answer = [f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()]
    if method == "GET":
        with path.open("rb") as stream:
            stream.seek(start)
            answer.append(stream.read(end - start))
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=9123)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.folder, arguments.port, arguments.milliseconds / 1000))


if __name__ == "__main__":
    main()
