from __future__ import annotations

from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.storage.cache import cache_folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)


@pytest.mark.parametrize("chosen", [None, ""])
def test_a_user_without_a_home_is_told_which_variable_to_set(
    homeless: None, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    monkeypatch.delenv("ISOSPACE_CACHE")
    if chosen is not None:
        monkeypatch.setenv("ISOSPACE_CACHE", chosen)
    with pytest.raises(ConfigError, match="ISOSPACE_CACHE is not set"):
        cache_folder()


def test_the_variable_is_enough(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOSPACE_CACHE", "/var/cache/isospace")
    assert cache_folder() == Path("/var/cache/isospace")
