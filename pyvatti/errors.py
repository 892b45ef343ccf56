"""The exception tree. Errors know neither HTTP nor any client library.

PyvattiError
├── ConfigurationError      the operator must change something: named in the message
├── TransientError          the world may change: tried again with back-off
│   ├── Unavailable         a neighbour does not answer, or not usefully
│   │   ├── RateLimited     it wants fewer calls
│   │   └── Denied          it refuses our credentials or permissions for now
│   │       ├── QuotaExceeded   nothing is left of an object quota
│   │       └── PolicyDenied    a policy of the cluster refuses this object for now
│   ├── Conflict            somebody else wrote first: read again
│   │   └── AlreadyExists   the name is taken
│   └── Deposed             this replica no longer leads: nothing was sent
├── PermanentError          will never work as asked
│   ├── Rejected            a neighbour refuses this very request
│   │   ├── NotFound        what should be written to does not exist
│   │   └── NamespaceTerminating    nothing can be created there any more
│   ├── NotOurs             the thing exists and belongs to somebody else
│   └── Undeletable         it is ours and held fast: a person must act
└── RequestError            the caller's fault
    ├── InvalidRequest
    ├── JobNotFound
    ├── JobExists
    └── JobFinished
"""

import re

from pyvatti import foreign

TEXT_LIMIT = 256
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{16,}")


def trim(text: str, *, is_cut: bool = False) -> str:
    """Cut a foreign text to 256 characters on one line, for logs and error messages.

    It comes out without configured secrets and without what the job at hand must not tell, which
    the joining of lines may have put together; `is_cut` says that its ends were cut off before.
    Some gateways repeat the header of a request in their error page: other credentials go too.
    """
    line = " ".join(foreign.clean(text, is_cut=is_cut).split())
    line = foreign.clean(line, is_cut=is_cut)
    return _CREDENTIAL.sub(r"\1 (redacted)", line)[:TEXT_LIMIT]


class PyvattiError(Exception):
    """Root of all errors raised by this package."""


class ConfigurationError(PyvattiError):
    """A setting is missing or wrong; the message names it."""


class TransientError(PyvattiError):
    """The same call may succeed later. `retry_after` is in seconds, where the neighbour said so."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(TransientError):
    """A neighbour refused the connection, hung, answered 429 or 5xx, or answered nonsense."""


class RateLimited(Unavailable):
    """A neighbour refuses because of too many calls (429): all calls of the kind must pause."""


class Denied(Unavailable):
    """A neighbour refuses our credentials (401) or permissions (403)."""


class QuotaExceeded(Denied):
    """An object quota of the namespace is used up: something must go first."""


class PolicyDenied(Denied):
    """An admission webhook or policy of the cluster refuses this very object; policies change.

    `words` are its own, trimmed.
    """

    def __init__(self, message: str, *, words: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.words = words


class Conflict(TransientError):
    """A compare-and-swap write met a newer version of the object."""


class AlreadyExists(Conflict):
    """The name is taken; whether by us, the caller must read."""


class Deposed(TransientError):
    """This replica no longer holds the Lease, so the call was not made."""


class PermanentError(PyvattiError):
    """The same call can never succeed."""


class Rejected(PermanentError):
    """A neighbour refuses this very request (400, 404 of the place, 413, 415, 422)."""


class NotFound(Rejected):
    """The object to write to, or its namespace, definitely does not exist."""


class NamespaceTerminating(Rejected):
    """The namespace is being deleted: writes to what exists work, creates do not."""


class NotOurs(PermanentError):
    """The thing exists and is not ours: it is never touched. The message says what did not fit."""


class Undeletable(PermanentError):
    """Something of ours is held fast by a hold, a retention or a permission.

    Until a person acts it stays, so it is tried again seldom, and shown. The message names the
    place, how many and why, never an object: file names may be personal.
    """


class RequestError(PyvattiError):
    """The caller asked for something that cannot be given."""


class InvalidRequest(RequestError):
    """The request breaks a rule; `problems` are (field, rule) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {rule}" for field, rule in problems))
        self.problems = problems


class JobNotFound(RequestError):
    """No live job and no record has this id."""


class JobExists(RequestError):
    """The id is taken by a live job with another request."""


class JobFinished(RequestError):
    """The id belongs to a finished job."""
