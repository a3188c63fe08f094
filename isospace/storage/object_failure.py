"""What an error of obstore says, whichever service it is about: the service's code, and the server that was asked."""

from __future__ import annotations

import re

_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_ENDPOINT = re.compile(r"Error performing [A-Za-z]+ (https?://[^/\s?]+)")


def failure_code(text: str) -> str:
    """Return the code that a service gave in its answer; empty if it gave none."""
    return next(iter(_CODE.findall(text)), "")


def failed_server(text: str) -> str:
    """Return scheme and host of the server that was asked; empty if the error names none."""
    return next(iter(_ENDPOINT.findall(text)), "")


def is_unreachable(text: str) -> bool:
    """Return whether no server answered."""
    return "error sending request" in text or "connect error" in text.lower()
