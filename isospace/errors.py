"""The exceptions of isospace.

    IsospaceError
    ├── ConfigError          a configuration that cannot run; names the key
    ├── SourceError          a source that cannot be read at all
    ├── StoreError           the object store failed, or lacks what was asked of it
    │   ├── NotFoundError    no such collection, alias, snapshot, space or file
    │   ├── IntegrityError   bytes are not what their manifest says
    │   ├── ConflictError    another run committed first
    │   └── BusyError        somebody else works on the store, and both at once would lose files
    ├── EncoderError         a model that cannot be loaded or misbehaves
    ├── WorkerError          a worker died or answered no more; its shard is tried again
    ├── NoWorkersError       no worker is left to try again
    ├── FitError             a sample that cannot carry the fit asked of it
    ├── MismatchError        two sides are not of the same space; names what differs
    ├── QueryError           a query that cannot be answered as it was put
    ├── CheckError           a check before the commit failed; nothing was published
    ├── GateError            a snapshot does not hold the rules of its gate; the alias stays
    └── AuditError           an audit found what a person has to look at

Every message gives the value found, what was expected, and what to do.
"""

from __future__ import annotations


class IsospaceError(Exception):
    """Root of every error that isospace raises on purpose."""


class ConfigError(IsospaceError):
    """A configuration cannot run; the message names the key."""


class SourceError(IsospaceError):
    """A source cannot be read at all, or too much of it had to be set aside."""


class StoreError(IsospaceError):
    """The object store failed, or does not hold what was asked of it."""


class NotFoundError(StoreError):
    """A collection, alias, snapshot, space or file does not exist in the store."""


class IntegrityError(StoreError):
    """The bytes of an artifact differ from what its manifest recorded."""


class ConflictError(StoreError):
    """Another run committed the same sequence number first."""


class BusyError(StoreError):
    """Somebody else works on the store, and both at once could lose files."""


class EncoderError(IsospaceError):
    """A model cannot be loaded, or returned something that is no embedding."""


class WorkerError(IsospaceError):
    """A worker died or answered no more; what it had is tried again by another."""


class NoWorkersError(IsospaceError):
    """Every worker was lost, and none could be started again."""


class FitError(IsospaceError):
    """The sample cannot carry the fit that was asked of it."""


class MismatchError(IsospaceError):
    """Two sides are not of the same space; the message names what differs."""


class QueryError(IsospaceError):
    """A query cannot be answered as it was put."""


class CheckError(IsospaceError):
    """A check before the commit failed, so nothing was published."""


class GateError(IsospaceError):
    """A snapshot does not hold the rules of its gate, so the alias was not moved."""


class AuditError(IsospaceError):
    """An audit found what a person has to look at."""
