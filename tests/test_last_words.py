"""What ended a driver follows from the end of its log, never from its container's code alone."""

import pytest
from builders import ended, pod
from hypothesis import given
from hypothesis import strategies as st

from pyvatti.diagnosis import decisive, driver_failure, transfer_failure
from pyvatti.diagnosis.last_words import SAID_LIMIT, Ending, read_last_words
from pyvatti.jobs.pods import read_pod
from pyvatti.labels import INIT_CONTAINER
from pyvatti.policy.pods import transfer_cause
from pyvatti.sandbox.driver_plans import HEAP_EXHAUSTED, Plan, printed

PROCESS = "GLOBFLOW:DECRYPT (test)"
KEPT_BY_KUBELET = 2048
NOT_FOUND = "Remote resource not found: https://gitlab.ebi.ac.uk/api/v4/projects/x%2Fglobflow"
REGISTRY = "ERROR ~ Conversion = '4'"
KILLING = "WARN: Killing running tasks (1)"
CHECK_UPLOAD = "Check the Globus path"


def report(status: int | None, *errors: str, process: str = PROCESS) -> str:
    """Give what Nextflow prints of a failed task."""
    plan = Plan(process=process, exit_status=status, error_lines=errors)
    return printed(plan.report("gs://x-work/work/transfer"))


def transfer_of(text: str, code: int = 1):
    return transfer_failure(ended(INIT_CONTAINER, code, message=text))


def driver_of(text: str, code: int = 1):
    return driver_failure(ended(code=code, message=text))


# --- the transfer: (id, log, container's code, reason, words of the next step, exit code told)
TRANSFERS = [
    ("the user's: a task that ran and failed", report(1, "404 Not Found"), 1,
     "TransferFailed", CHECK_UPLOAD, 1),
    ("the task's own arguments", report(255, "bad option"), 1,
     "TransferMisconfigured", "GLOBFLOW_REVISION", 255),
    ("a task out of memory", report(3, "java.lang.OutOfMemoryError: Java heap space"), 1,
     "TransferOutOfMemory", "MAX_MEMORY", 3),
    ("a task killed", report(137), 1, "TaskOutOfMemory", "MAX_MEMORY", 137),
    ("a spot machine", report(50001), 1, "MachinePreempted", "Nothing is wrong", 50001),
    ("a task over its time", report(50005), 1, "TaskOverTime", "MAX_TIME", 50005),
    ("a task that Batch never took", report(None), 1, "TransferFailed", "Read the driver's", None),
    ("no GitLab", f"Checking x ...\n{NOT_FOUND}", 1, "TransferCannotStart", "GitLab", 1),
    ("no plugin registry", REGISTRY, 1, "TransferCannotStart", "driver image", 1),
    ("no credentials of Google", "ERROR ~ Missing Google credentials", 1,
     "TransferCannotStart", "DRIVER_SERVICE_ACCOUNT", 1),
    ("a bad option", "ERROR ~ Unknown option: -x", 1, "TransferCannotStart", "Nothing is wrong", 1),
    ("a name that was used", "ERROR ~ Run name `a` has been already used", 1,
     "TransferCannotStart", "under a new id", 1),
    ("stopped while pulling", "", 143, "TransferStopped", "Nothing is wrong", 143),
    ("stopped later", KILLING, 1, "TransferStopped", "Nothing is wrong", 1),
    ("stopped, and then an error of it", f"{KILLING}\nERROR ~ Execution aborted", 1,
     "TransferStopped", "Nothing is wrong", 1),
    ("an error, for which tasks were stopped", f"ERROR ~ No such variable: x\n{KILLING}", 1,
     "TransferCannotStart", "Nothing is wrong", 1),
    ("a failed task, for which others were stopped", f"{report(1)}\n{KILLING}", 1,
     "TransferFailed", CHECK_UPLOAD, 1),
    ("its own heap", HEAP_EXHAUSTED, 3, "TransferOutOfMemory", "DRIVER_MEMORY", 3),
    ("its own heap, the log lost", "", 3, "TransferOutOfMemory", "DRIVER_MEMORY", 3),
    ("killed", "", 137, "TransferKilled", "Nothing is wrong", 137),
    ("no word", "", 1, "TransferFailed", "Read the driver's log", 1),
    ("its own code 255", "", 255, "TransferFailed", "Read the driver's log", 255),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "reason", "step", "told"), [row[1:] for row in TRANSFERS],
    ids=[row[0] for row in TRANSFERS],
)  # fmt: skip
def test_a_failed_transfer_is_blamed_on_who_is_to_blame(text, code, reason, step, told):
    found = transfer_of(text, code)

    assert (found.reason, found.exit_code) == (reason, told)
    assert step in found.next_step
    assert (CHECK_UPLOAD in found.next_step) == (step == CHECK_UPLOAD)


def test_a_transfer_that_batch_refused_says_why():
    text = "ERROR ~ Error executing process > 'A (1)'\n\nCaused by:\n  PERMISSION_DENIED: no\n\n"

    assert transfer_of(text).message == "data transfer failed: PERMISSION_DENIED: no"


@pytest.mark.parametrize(
    ("text", "code", "reason", "told"),
    [
        pytest.param(report(14, "x"), 1, "MatchRateError", 14, id="a task, by its own code"),
        pytest.param(report(1, "pgsexceptions.ZeroMatchesError: no"), 1, "ZeroMatchesError", 1,
                     id="a task, by its exception"),
        pytest.param(report(6, "x", process="A:B:PLINK2_SCORE (1)"), 1, "PlinkMalformedInput", 6,
                     id="a task of plink2"),
        pytest.param("", 3, "DriverOutOfMemory", 3, id="its heap"),
        pytest.param(KILLING, 1, "DriverStopped", 1, id="stopped"),
        pytest.param("", 143, "DriverStopped", 143, id="stopped while pulling"),
        pytest.param(NOT_FOUND, 1, "DriverCannotStart", 1, id="no GitLab"),
        pytest.param("", 137, "DriverKilled", 137, id="killed"),
        pytest.param("", 1, "DriverFailed", 1, id="no word"),
        pytest.param("", 127, "DriverCannotStart", 127, id="no program"),
    ],
)  # fmt: skip
def test_a_failed_driver_is_read_from_its_log(text, code, reason, told):
    found = driver_of(text, code)

    assert (found.reason, found.exit_code) == (reason, told)


def test_a_task_is_known_by_the_rest_of_its_report_where_the_kubelet_cut_it():
    errors = tuple(f"line {number} of a long trace of some Java program" for number in range(80))
    text = report(14, *errors)[-KEPT_BY_KUBELET:]
    assert "Error executing" not in text

    words = read_last_words(text, 1)

    assert words.ending is Ending.TASK
    assert words.errors.endswith("line 79 of a long trace of some Java program")
    assert decisive(text).endswith("line 79 of a long trace of some Java program")


def test_earlier_tries_of_a_task_are_not_its_end():
    tried = f"[57/c0] NOTE: Process `{PROCESS}` terminated with an error exit status (50001) -- "

    assert transfer_of(f"{tried}Execution is retried (1)\n{report(1)}").exit_code == 1


def test_the_evidence_holds_cause_and_command_error_of_a_failed_task():
    said = decisive(report(1, "404 Not Found from GET https://g.globus.org"))

    assert said.startswith(f"Error executing process > '{PROCESS}': Process `{PROCESS}` terminated")
    assert said.endswith("Command error: 404 Not Found from GET https://g.globus.org")


def test_the_evidence_begins_with_nextflows_error_line():
    assert decisive(f"N E X T F L O W\n{'x' * 5000}\n{REGISTRY}\nmore") == f"{REGISTRY}\nmore"


def test_all_that_a_kubelet_keeps_is_read():
    text = report(1, "404 Not Found", *("x" * 60 for _ in range(20)))
    ending = {"exitCode": 1, "reason": "Error", "message": text}
    status = {"name": INIT_CONTAINER, "state": {"terminated": ending}}
    raw = {
        "metadata": {"name": "a", "uid": "1", "ownerReferences": []},
        "status": {"initContainerStatuses": [status]},
    }
    assert 1000 < len(text) <= KEPT_BY_KUBELET

    end = read_pod(raw, str).init_end

    assert end is not None
    assert (end.message, transfer_failure(end).exit_code) == (text, 1)


def test_what_the_cluster_did_comes_before_every_word():
    evicted = pod(phase="Failed", reason="Evicted")

    assert transfer_cause(evicted, ended(INIT_CONTAINER, 1, message=report(1))).reason == "Evicted"


LINES = st.sampled_from(
    ["ERROR ~ ", "Error executing process > '", "'", "\n", "\n\n", "Caused by:\n", "Work dir:\n",
     "Command error:\n", "Command exit status:\n", " 7", KILLING, HEAP_EXHAUSTED, " ", "x" * 600]
)  # fmt: skip


@given(st.lists(LINES, max_size=40).map("".join), st.integers(-(2**31), 2**31))
def test_any_words_give_a_reason_and_bounded_evidence(text, code):
    for found in (transfer_of(text, code), driver_of(text, code)):
        assert found.reason
        assert found.message
        assert found.next_step.endswith(".")
    assert len(decisive(text)) <= SAID_LIMIT
