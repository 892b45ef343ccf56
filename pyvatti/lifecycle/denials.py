"""What becomes of a step that an admission webhook or policy of the cluster denies.

Its words are shown and told at once; a launch fails of it once it has lasted.
"""

from dataclasses import replace

import structlog

from pyvatti.errors import PolicyDenied
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import State
from pyvatti.policy import DENIED, Action, Observed, Progress, denial_stays, denied
from pyvatti.policy.actions import Enter, Withdraw

log = structlog.get_logger(__name__)


def weigh(
    error: PolicyDenied, step: Action, seen: Observed, *, doors: Doors, hands: Hands
) -> Progress:
    """Give what is known after a denial: its words, or that the launch is refused for good.

    A job that was released is followed on: nobody is helped if it ends.
    """
    done, before, now = seen.progress, seen.progress.denial, doors.clock()
    denial = denied(before, error.words, now)
    if before is None or before.message != denial.message:
        hands.warn(seen.job, DENIED, denial.message)
    done = replace(done, denial=denial)
    is_launch = seen.job.state is State.REQUESTED and not isinstance(step, Withdraw | Enter)
    if not is_launch or not denial_stays(denial, now, doors.settings):
        return done
    name = type(step).__name__
    log.error("launch refused", step=name, error=str(error))
    return replace(done, refusal=(f"{name}Denied", denial.message))
