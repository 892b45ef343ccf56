"""PURE: what is to be done about a job, given everything seen of it.

No I/O, no clock, no memory: the same arguments give the same answer. Gathering is the lifecycle's.
"""

from pyvatti.policy.actions import Action
from pyvatti.policy.admission import Slots, admit, most_released
from pyvatti.policy.deciding import decide, is_accepted, is_data_gone, wake_times
from pyvatti.policy.judging import judge
from pyvatti.policy.observed import Observed, Progress
from pyvatti.policy.waiting import DENIED, denial_stays, denied, is_stuck, waiting_for

__all__ = [
    "DENIED",
    "Action",
    "Observed",
    "Progress",
    "Slots",
    "admit",
    "decide",
    "denial_stays",
    "denied",
    "is_accepted",
    "is_data_gone",
    "is_stuck",
    "judge",
    "most_released",
    "waiting_for",
    "wake_times",
]
