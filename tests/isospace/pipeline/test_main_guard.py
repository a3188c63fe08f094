"""A script that its own workers would start again is refused, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
IMPORT = "from isospace.pipeline.main_guard import require_main_guard as start\n"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{folder}"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "script",
    [
        "start()\nprint('started')",
        "def main():\n    start()\n\nmain()",
        "import contextlib\nwith contextlib.suppress(KeyError):\n    start()",
        "if len('x') == 1:\n    start()",
        "import threading\nthread = threading.Thread(target=start)\nthread.start()\nthread.join()\nstart()",
        "if __name__ == '__main__':\n    pass\nstart()",
    ],
)
def test_a_script_without_a_guard_is_refused_with_the_two_lines_to_add(tmp_path: Path, script: str) -> None:
    (tmp_path / "job.py").write_text(IMPORT + script)
    done = run("job.py", folder=tmp_path)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":\n    main()' in done.stderr
    assert "job.py, line " in done.stderr
    assert "started" not in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        "if __name__ == '__main__':\n    start()",
        "def main():\n    start()\n\nif '__main__' == __name__ and True:\n    main()",
        "try:\n    if __name__ == '__main__':\n        start()\nfinally:\n    pass",
    ],
)
def test_a_script_with_a_guard_is_not(tmp_path: Path, script: str) -> None:
    (tmp_path / "job.py").write_text(IMPORT + script)
    assert run("job.py", folder=tmp_path).returncode == 0
    assert run("-m", "job", folder=tmp_path).returncode == 0


def test_what_no_worker_imports_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(f"{IMPORT}start()")
    assert run("-m", "package", folder=tmp_path).returncode == 0
    assert run("-c", f"{IMPORT}start()", folder=tmp_path).returncode == 0
    (tmp_path / "job.py").write_text(f"{IMPORT}start()")
    assert run("-m", "job", folder=tmp_path).returncode == 1
