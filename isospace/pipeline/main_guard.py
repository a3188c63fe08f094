"""Refuse a script that worker processes would start again.

A new process imports the script that started it. Statements that stand outside of `if __name__ == "__main__"` run again
in every worker: a run there would start a run of its own, and nothing would ever be encoded.
"""

from __future__ import annotations

import ast
import sys
import threading
import tokenize
from multiprocessing import spawn
from pathlib import Path
from types import FrameType

from isospace.errors import ConfigError


def require_main_guard() -> None:
    """Check that the script that is running now would not run again in a worker process.

    Raises
    ------
    ConfigError
        If the statement that it is at stands outside of `if __name__ == "__main__"`.
    """
    path, line = _imported_script(), _line_of_main()
    if path is None or line is None or _is_guarded(path, line):
        return
    raise ConfigError(
        f"{path}, line {line}: starts worker processes, which import this script and would run this line again. Move "
        "the statements of the script into a function, def main(), and end the script with the two lines\n"
        'if __name__ == "__main__":\n    main()\n'
    )


def _imported_script() -> Path | None:
    """Return the file that a new process imports as the main module; None if there is none, as in a console."""
    try:
        known = spawn.get_preparation_data("worker")
    except RuntimeError:
        # This process is importing the script.
        return Path(sys.argv[0])
    name = str(known.get("init_main_from_name", ""))
    if name == "__main__" or name.endswith(".__main__"):
        # Never imported again.
        return None
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file) if file and (name or "init_main_from_path" in known) else None


def _line_of_main() -> int | None:
    """Return the line that the main module is at; None if the main thread is not within it."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in ("__main__", "__mp_main__"):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(path: Path, line: int) -> bool:
    """Return whether a line stands inside of an `if` that asks for `__name__`, or the file cannot be read."""
    try:
        with tokenize.open(path) as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line <= (node.end_lineno or line)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        for node in ast.walk(tree)
    )
