import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvatti.diagnosis import explain, process_of, run_failure, trace_exit, trace_name
from pyvatti.models import Run, RunStatus

PAYLOADS = Path(__file__).parent / "data" / "payloads"
PROCESS = "PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)"
PLINK = "PGSCATALOG_PGSCCALC:PGSCCALC:MAKE_COMPATIBLE:PLINK2_VCF (chr1)"
REPORT = f"Error executing process > '{PROCESS}'\n\nCaused by:\n  Process terminated"
NOW = datetime(2024, 7, 10, 18, tzinfo=UTC)
FAILED = Run(
    name="intervene-dev-intp1",
    status=RunStatus.FAILED,
    submitted_at=NOW,
    seen_at=NOW,
    exit_status=14,
    error_report=REPORT,
)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (None, 1),
        (0, 1),
        (-1, 1),
        (1, 1),
        (15, 15),
        (127, 127),
        (128, 1),
        (137, 1),
        (143, 1),
        (255, 1),
        (50001, 1),
    ],
)
def test_fault_33_every_exit_code_becomes_one_a_java_byte_holds(code: int | None, told: int):
    assert trace_exit(code) == told


@given(st.none() | st.integers())
def test_exit_code_of_a_failure_is_never_zero_or_out_of_range(code: int | None):
    assert 1 <= trace_exit(code) <= 127


def is_plain(name: str):
    control = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return not any(mark in name for mark in "<>&") and not any(
        unicodedata.category(character) in control for character in name
    )


@given(st.text(st.characters(), max_size=2000) | st.text("<>&\n\x00\u2028 é😀", max_size=2000))
def test_any_text_becomes_one_plain_line(text: str):
    name = trace_name(text)

    assert name
    assert len(name.encode("utf-16-le")) <= 2 * 512
    assert is_plain(name)
    assert name == name.strip()


@given(st.text(st.characters(), max_size=2000))
def test_plain_line_stays_as_it_is(text: str):
    assert trace_name(trace_name(text)) == trace_name(text)


def test_fault_35_huge_report_with_emoji_and_markup_becomes_one_line():
    report = "Oh no \U0001f600 <b>bold</b>\r\n& more\x00\x1b[31m\u2028" * 3000

    name = trace_name(report)

    assert 500 < len(name) <= 512
    assert name.startswith("Oh no ? b bold /b more [31m")
    assert is_plain(name)


@pytest.mark.parametrize("text", ["", " \n\t", "<>&", "\x00"])
def test_text_without_content_is_named_all_the_same(text: str):
    assert trace_name(text) == "unknown failure"


def test_ordinary_process_path_is_not_changed():
    assert trace_name(PROCESS) == PROCESS


@pytest.mark.parametrize(
    ("report", "process"),
    [
        pytest.param(REPORT, PROCESS, id="report"),
        pytest.param(f"\n\n{REPORT}", PROCESS, id="blank lines first"),
        pytest.param("Error executing process > 'A:B (it's)'", "A:B (it's)", id="quote in tag"),
        pytest.param(f"SIGTERM\nError executing process > '{PROCESS}'", None, id="in line 2"),
        pytest.param("No such variable: 'x'", None, id="another quoted thing"),
        pytest.param("Error executing process > ' '", None, id="blank name"),
        pytest.param("", None, id="empty"),
    ],
)
def test_process_is_the_quoted_name_in_line_1(report: str, process: str | None):
    assert process_of(report) == process


@pytest.mark.parametrize(
    ("code", "process", "reason"),
    [
        (1, PROCESS, "TaskFailed"),
        (2, PROCESS, "TaskFailed"),
        (6, None, "TaskFailed"),
        (2, PLINK, "PlinkOutOfMemory"),
        (3, PLINK, "PlinkOpenFailed"),
        (4, PLINK, "PlinkReadFailed"),
        (5, PLINK, "PlinkWriteFailed"),
        (6, PLINK, "PlinkMalformedInput"),
        (7, PLINK, "PlinkInconsistentInput"),
        (8, PLINK, "PlinkInvalidCommandLine"),
        (14, PLINK, "TaskFailed"),
        (8, PROCESS, "ScoreDownloadError"),
        (9, PROCESS, "ScoreFormatError"),
        (10, PROCESS, "ScoreChecksumError"),
        (11, PROCESS, "QueryError"),
        (12, PROCESS, "InvalidAccessionError"),
        (13, PROCESS, "DuplicateMatchError"),
        (14, PROCESS, "MatchRateError"),
        (15, None, "ZeroMatchesError"),
        (16, PROCESS, "MatchValueError"),
        (17, PROCESS, "BuildError"),
        (18, PROCESS, "TaskFailed"),
        (19, PROCESS, "GenomesNotFound"),
        (20, PROCESS, "SamplesheetFormatError"),
        (21, PROCESS, "EffectTypeError"),
        (104, PROCESS, "TaskKilled"),
        (130, PROCESS, "TaskKilled"),
        (137, PLINK, "TaskOutOfMemory"),
        (139, PROCESS, "TaskKilled"),
        (143, PROCESS, "TaskStopped"),
        (145, PROCESS, "TaskKilled"),
        (146, PROCESS, "TaskFailed"),
        (255, PROCESS, "PGSCatalogError"),
        (50001, PROCESS, "MachinePreempted"),
        (50002, PROCESS, "MachineSilent"),
        (50003, PROCESS, "MachineRebooted"),
        (50004, PROCESS, "MachineUnresponsive"),
        (50005, PROCESS, "TaskOverTime"),
        (50006, PROCESS, "MachineRecreated"),
        (-1, PROCESS, "TaskFailed"),
        (None, None, "WorkflowFailed"),
        (0, None, "WorkflowFailed"),
        (None, PROCESS, "TaskFailed"),
    ],
)
def test_exit_code_has_its_reason(code: int | None, process: str | None, reason: str):
    explanation = explain(code, process, "")

    assert explanation.code == reason
    assert explanation.message.endswith(".")
    assert explanation.next_step.endswith(".")


def test_known_exit_codes_are_all_explained():
    codes = json.loads((PAYLOADS / "exit-codes.json").read_text())
    listed = codes["pgscatalog"] | codes["signals"] | codes["google_batch"]

    for code, name in listed.items():
        found = explain(int(code), PROCESS, "").code
        if code.isdigit() and 8 <= int(code) <= 21:
            assert found == name.split()[0]
        assert found != "TaskFailed" or code == "1"
    for code in codes["plink2"]:
        assert explain(int(code), PLINK, "").code.startswith("Plink")


@pytest.mark.parametrize("code", [None, 0, 1, 255])
def test_exception_named_in_the_report_says_more_than_a_generic_code(code: int | None):
    report = f"{REPORT}\n  pgscatalog.core.lib.pgsexceptions.ZeroMatchesError: All scores fail"

    assert explain(code, PROCESS, report).code == "ZeroMatchesError"


def test_exit_code_counts_more_than_an_exception_in_the_report():
    assert explain(12, PROCESS, "raised from ScoreFormatError").code == "InvalidAccessionError"


def test_failed_task_is_told_by_its_process_and_code():
    failure = run_failure(FAILED)

    assert failure.reason == "MatchRateError"
    assert failure.message == (
        f"Too few variants of the scores were found in the genomes. (step {PROCESS}, exit code 14)"
    )
    assert failure.exit_code == 14
    assert failure.trace_name == PROCESS
    assert failure.trace_exit == 14


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (137, "(exit 137, out of memory or killed)"),
        (143, "(exit 143, stopped)"),
        (139, "(exit 139, signal 11)"),
        (255, "(exit 255, error in a PGS Catalog tool)"),
        (50001, "(exit 50001, preempted)"),
        (-1, "(exit -1, a step failed)"),
    ],
)
def test_code_a_byte_cannot_hold_is_told_in_words(code: int | None, words: str):
    failure = run_failure(replace(FAILED, exit_status=code))

    assert failure.trace_name == f"{PROCESS} {words}"
    assert failure.trace_exit == 1
    assert failure.exit_code == code


def test_words_for_the_real_code_survive_a_name_that_is_too_long():
    report = f"Error executing process > '{'x' * 600}'"

    failure = run_failure(replace(FAILED, exit_status=137, error_report=report))

    assert len(failure.trace_name) == 512
    assert failure.trace_name.endswith("xx (exit 137, out of memory or killed)")


@pytest.mark.parametrize("code", [None, 0])
@pytest.mark.parametrize(
    ("report", "message", "name", "reason"),
    [
        pytest.param("SIGTERM", "SIGTERM", "SIGTERM", "DriverStopped", id="stopped"),
        pytest.param(
            "Unknown config <x>\nmore", "", "Unknown config x", "WorkflowFailed", id="report"
        ),
        pytest.param("", "No such file", "No such file", "WorkflowFailed", id="message only"),
        pytest.param(
            "",
            "",
            "The workflow stopped outside of any step: its script, configuration or a plug-in "
            "failed.",
            "WorkflowFailed",
            id="nothing said",
        ),
        pytest.param(REPORT, "", f"Error executing process '{PROCESS}'", "TaskFailed", id="task"),
    ],
)
def test_failure_without_a_code_is_told_by_line_1(
    code: int | None, report: str, message: str, name: str, reason: str
):
    run = replace(FAILED, exit_status=code, error_report=report, error_message=message)

    failure = run_failure(run)

    assert (failure.trace_name, failure.trace_exit, failure.reason) == (name, 1, reason)


@pytest.mark.parametrize("code", [None, 0, 14, 137])
def test_fault_19_cancelled_run_is_told_with_an_integer_whatever_its_row_holds(code: int | None):
    failure = run_failure(replace(FAILED, status=RunStatus.CANCELLED, exit_status=code))

    assert failure.reason == "Cancelled"
    assert failure.trace_name == "cancelled in Seqera"
    assert failure.trace_exit == 1


def test_real_report_of_a_withdrawn_score_is_understood():
    payload = json.loads((PAYLOADS / "seqera-list-failed.json").read_text())
    row = payload["workflows"][0]["workflow"]

    failure = run_failure(
        replace(FAILED, exit_status=row["exitStatus"], error_report=row["errorReport"])
    )

    assert failure.reason == "InvalidAccessionError"
    assert failure.trace_name == ("PGSCATALOG_PGSCCALC:PGSCCALC:INPUT_CHECK:COMBINE_SCOREFILES (1)")
    assert failure.trace_exit == 12
