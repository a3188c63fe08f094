"""Measured tokens per second of an encoder, stored for the estimates of later plans."""

from __future__ import annotations

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store


def measured_rate(store: Store, encoder_id: str, place: str) -> float | None:
    """Return the tokens per second of an encoder's last run at a place; None if there was no run."""
    rate = measured_rates(store, encoder_id).get(place)
    return float(rate) if rate else None


def record_rate(store: Store, encoder_id: str, place: str, tokens: int, seconds: float) -> None:
    """Store the combined tokens per second of all workers, for the estimates of later plans.

    Parameters
    ----------
    tokens
        Number of tokens that were encoded.
    seconds
        Elapsed time in seconds, with all workers running in parallel.
    """
    if not tokens or not seconds:
        return
    known = measured_rates(store, encoder_id)
    store.write(layout.encoder_rate(encoder_id), seal({**known, place: round(tokens / seconds, 1)}))


def measured_rates(store: Store, encoder_id: str) -> dict[str, float]:
    """Return the tokens per second of an encoder's last run at each place; empty if there was none."""
    path = layout.encoder_rate(encoder_id)
    try:
        return unseal(store.read(path), name=path)
    except (NotFoundError, IntegrityError):
        # Used for estimates only: if the file is damaged, the next run measures again.
        return {}
