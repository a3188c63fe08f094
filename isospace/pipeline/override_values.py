"""Read the values of `KEY=VALUE` on the command line."""

from __future__ import annotations

from typing import Any

import yaml


def parse_value(text: str) -> Any:
    """Return a value that was given as YAML; a text with `#` in it is a text.

    What follows a `#` would be a comment in a file; on the command line nobody comments, and the rest of a path or a
    reason would be lost without a word.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, or if a list, a mapping, or a quoted text has something after it.
    """
    node = yaml.compose(text, yaml.SafeLoader)
    rest = text if node is None else text[node.end_mark.index :]
    if not rest.strip():
        return yaml.safe_load(text)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None):
        return text.strip()
    raise yaml.YAMLError(f"{rest.strip()!r} follows the value")
