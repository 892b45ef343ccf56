"""Whether the work at hand may still reach outside: a leader's calls end with its Lease.

Neither who leads (kube/lease) nor what is done (lifecycle); doors ask right before they send.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pyvatti.errors import Deposed

_may_act: ContextVar[Callable[[], bool]] = ContextVar("may_act", default=lambda: True)


@contextmanager
def fenced(may_act: Callable[[], bool]) -> Iterator[None]:
    """Bind all calls made inside, by tasks and threads begun here too, to `may_act`.

    It is asked from any thread. Calls made elsewhere, such as accepts, are free.
    """
    before = _may_act.set(may_act)
    try:
        yield
    finally:
        _may_act.reset(before)


def require() -> None:
    """Raise Deposed once another replica may act."""
    if not _may_act.get()():
        raise Deposed("this replica no longer holds the Lease")
