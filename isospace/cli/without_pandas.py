"""Keep pandas out of a command: where it is installed, pyarrow imports it for lists, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType


class _Hidden:
    """A finder that finds no pandas."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def use_arrow_without_pandas() -> None:
    """Let pyarrow make its first array while pandas cannot be found, unless this process already has pandas.

    It looks for pandas once, with the first list that becomes an array, to tell whether it is a series. The import
    takes a quarter of a second, and no command has any. `import pandas` and `to_pandas` work afterwards.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(hidden)
