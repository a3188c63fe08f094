"""Every stage of every run, found where it is defined: a list would miss the next one."""

from __future__ import annotations

import importlib
from pathlib import Path

import isospace
from isospace.pipeline.executor import Stage


def all_stages() -> dict[str, Stage]:
    """Return every stage by the dotted name of its constant."""
    root = Path(isospace.__file__).parent
    files = [path for path in sorted(root.rglob("*.py")) if " = Stage(" in path.read_text(encoding="utf-8")]
    modules = [importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts)) for path in files]
    found = [(f"{module.__name__}.{name}", value) for module in modules for name, value in vars(module).items()]
    # A module may import another's stage: the same one is listed once.
    stages = {id(value): (name, value) for name, value in found if isinstance(value, Stage)}
    return dict(stages.values())
