"""Read YAML, and the values of `KEY=VALUE` on the command line."""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, or if a value does not fit its tag, such as `!!bool maybe` and the date `2024-13-01`.
    """
    try:
        return yaml.safe_load(text)
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # The constructors of the library raise whatever a conversion does.
        raise yaml.YAMLError("a value does not fit its tag, or what it looks like") from error
    except RecursionError as error:
        raise yaml.YAMLError("it nests too deeply") from error


def parse_value(text: str) -> Any:
    """Return a value that was given as YAML; a text with `#` in it is a text.

    What follows a `#` would be a comment in a file; on the command line nobody comments, and the rest of a path or a
    reason would be lost without a word.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, if a value does not fit its tag, or if a list, a mapping, or a quoted text has
        something after it.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it nests too deeply") from error
    rest = text if node is None else text[node.end_mark.index :]
    if not rest.strip():
        return load_yaml(text)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None):
        return text.strip()
    raise yaml.YAMLError(f"{rest.strip()!r} follows the value")
