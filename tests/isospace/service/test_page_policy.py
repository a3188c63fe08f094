from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from isospace.search.index import Index
from isospace.service.app import create_app


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_load_nothing_from_elsewhere_and_says_so(opened: Index, path: str) -> None:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(opened))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)

    answer = asyncio.run(get())
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not any("http" in sources or "*" in sources for sources in policy.values())
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    # What a stranger wrote is set as text: as markup the policy would let its scripts run.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", answer.text)
    assert not re.search(r"(src|href)=[\"']?https?:", answer.text)
