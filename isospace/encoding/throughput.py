"""Tokens per second that an encoder reached, kept for the estimates of later plans."""

from __future__ import annotations

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store


def measured_rate(store: Store, encoder_id: str, place: str) -> float | None:
    """Return the tokens per second of the last run with an encoder at a place, if there was one."""
    rate = measured_rates(store, encoder_id).get(place)
    return float(rate) if rate else None


def record_rate(store: Store, encoder_id: str, place: str, tokens: int, seconds: float) -> None:
    """Remember the tokens per second of all workers together, for the estimates of later plans.

    Parameters
    ----------
    tokens
        What was encoded.
    seconds
        How long all workers together needed, at the same time.
    """
    if not tokens or not seconds:
        return
    known = measured_rates(store, encoder_id)
    store.write(layout.encoder_rate(encoder_id), seal({**known, place: round(tokens / seconds, 1)}))


def measured_rates(store: Store, encoder_id: str) -> dict[str, float]:
    """Return the tokens per second of an encoder's last runs, by the place they ran at; empty if there was none."""
    path = layout.encoder_rate(encoder_id)
    try:
        return unseal(store.read(path), name=path)
    except (NotFoundError, IntegrityError):
        # A note for estimates: one that is damaged is measured again.
        return {}
