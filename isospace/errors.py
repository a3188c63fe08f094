"""The exceptions of isospace.

    IsospaceError
    ├── ConfigError          the configuration is invalid; names the key
    ├── SourceError          the source cannot be read, or too many inputs were quarantined
    ├── StoreError           the object store failed
    │   ├── NotFoundError    no such collection, alias, snapshot, space, or file
    │   ├── IntegrityError   a file differs from what was recorded about it
    │   ├── ConflictError    another run committed first
    │   └── BusyError        another process uses the store, and files could be lost
    ├── EncoderError         a model cannot be loaded, or returns invalid vectors
    ├── WorkerError          a worker died or hangs; its shard is retried
    ├── NoWorkersError       all workers are lost
    ├── FitError             the sample is not suitable for the fit
    ├── MismatchError        two sides belong to different spaces; names the difference
    ├── QueryError           a query is invalid
    ├── CheckError           a check before the commit failed; nothing was published
    ├── GateError            a snapshot failed the quality gate; the alias was not moved
    └── AuditError           an audit raised alarms

Every message gives the value found, what was expected, and what to do.
"""

from __future__ import annotations


class IsospaceError(Exception):
    """Root of every error that isospace raises on purpose."""


class ConfigError(IsospaceError):
    """The configuration is invalid; the message names the key."""


class SourceError(IsospaceError):
    """The source cannot be read, or too many of its inputs were quarantined."""


class StoreError(IsospaceError):
    """The object store failed."""


class NotFoundError(StoreError):
    """A collection, alias, snapshot, space, or file does not exist in the store."""


class IntegrityError(StoreError):
    """A file differs from what was recorded about it when it was written."""


class ConflictError(StoreError):
    """Another run committed the same number first."""


class BusyError(StoreError):
    """Another process uses the store, and files could be lost if both continued."""


class EncoderError(IsospaceError):
    """A model cannot be loaded, or returned invalid vectors."""


class WorkerError(IsospaceError):
    """A worker died or stopped responding; another worker retries its shard."""


class NoWorkersError(IsospaceError):
    """All workers were lost, and none could be restarted."""


class FitError(IsospaceError):
    """The sample is too small or otherwise not suitable for the fit."""


class MismatchError(IsospaceError):
    """Two sides belong to different spaces; the message names the difference."""


class QueryError(IsospaceError):
    """A query is invalid."""


class CheckError(IsospaceError):
    """A check before the commit failed, so nothing was published."""


class GateError(IsospaceError):
    """A snapshot failed the quality gate, so the alias was not moved."""


class AuditError(IsospaceError):
    """An audit raised alarms that a person should look at."""
