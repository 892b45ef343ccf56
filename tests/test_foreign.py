"""Foreign text loses secrets and personal data at each door, known job or not."""

import base64
import json
import logging
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from urllib.parse import quote

import httpx
import pytest
import structlog
from builders import settings
from google.api_core import exceptions as google
from hypothesis import given
from hypothesis import strategies as st
from stage import launch_body

from pyvatti import foreign, seqera
from pyvatti.backend import Answer, Backend, body
from pyvatti.errors import trim
from pyvatti.jobs import read_pod
from pyvatti.kube.answers import decode, error_for, read_cluster_event
from pyvatti.launch import LaunchRequest
from pyvatti.launch.personal import redactor_of
from pyvatti.lifecycle.personal import Personal
from pyvatti.models import Event, Notice
from pyvatti.redaction import MARK, Redactor
from pyvatti.rest import Rest, Timeouts
from pyvatti.seqera import Seqera
from pyvatti.settings import secret_values
from pyvatti.storage.calls import mapped, of_status
from pyvatti.telemetry import configure_logging

T0 = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SIGNING_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
SETTINGS = settings(
    api_tokens="api-token-number-one,api-token-number-two", notify_signing_secret=SIGNING_SECRET
)
SECRETS = {
    "tower": "tower-secret-1",
    "globus": "globus-secret-2",
    "key handler token": "a2V5OnNlY3JldC0z",
    "what the token stands for": "key:secret-3",
    "its password": "secret-3",
    "key handler password": "password-secret-4",
    "backend": "bm90aWZ5OnNlY3JldC01",
    "api": "api-token-number-two",
    "signing": SIGNING_SECRET,
    "signing, bare": SIGNING_SECRET.removeprefix("whsec_"),
}
PERSONAL = {
    "e-mail": "jane.doe@hospital.example",
    "before the @": "jane.doe",
    "word before the @": "jane",
    "host": "hospital.example",
    "folder": "jane.doe@hospital.example/Jane Doe colon cancer/2026-09",
    "part of the folder": "Jane Doe colon cancer",
    "sampleset": "JaneDoe1970",
    "file": "jane_doe.pgen",
    "encrypted file": "jane_doe.pgen.c4gh",
    "file's stem": "jane_doe",
    "key": "81D5C400-21B4-4E88-8208-8D64C9920283",
}
FORMS = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text, safe="").lower(), safe=""),
    "JSON": json.dumps,
    "Java": lambda text: "".join(f"\\u{ord(char):04X}" for char in text),
    "base64": lambda text: base64.b64encode(f"a: {text}\n".encode()).decode(),
    "upper case": str.upper,
}


def request():
    """Make a launch of somebody whose data is easily found again."""
    made = launch_body()
    genome = made["pipeline_param"]["target_genomes"][0]
    names = {"geno": "pgen", "variants": "pvar", "pheno": "psam"}
    genome.update(sampleset="JaneDoe1970", **{k: f"jane_doe.{v}" for k, v in names.items()})
    files = [{"filename": f"jane_doe.{end}.c4gh", "size": 5} for end in names.values()]
    folder = PERSONAL["folder"]
    made["globus_details"] = {"dir_path_on_guest_collection": folder, "files": files}
    made["secret_key_details"] = {"secret_id": PERSONAL["key"], "secret_id_version": "1"}
    return LaunchRequest.model_validate(made)


KNOWN = redactor_of(request())


@pytest.fixture
def hiding():
    with foreign.hiding(secret_values(SETTINGS)):
        yield


@pytest.fixture
def about(hiding):
    with foreign.about(lambda: redactor_of(request())):
        yield


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_every_configured_secret_goes_in_every_form(hiding, secret, form):
    cleaned = foreign.clean(f"<{form(secret)}>")

    assert MARK in cleaned or cleaned == f"<{MARK}>"
    assert form(secret) not in cleaned


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("value", PERSONAL.values(), ids=PERSONAL)
def test_everything_personal_of_a_request_goes_in_every_form(about, value, form):
    cleaned = foreign.clean(f"<{form(value)}>")

    assert MARK in cleaned
    assert form(value) not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "the results of the test are in results/report.html",
        "Error executing process > 'PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)'",
        "exit code 1 on chr22, version 1, of janet",
    ],
)
def test_what_says_nothing_about_a_person_stays(about, text):
    assert foreign.clean(text) == text


def test_plain_words_of_a_request_stay_by_themselves():
    made = launch_body()
    made["globus_details"]["dir_path_on_guest_collection"] = "info@example.org/results/x1/upload"
    redactor = redactor_of(LaunchRequest.model_validate(made))

    assert redactor("info: no results in upload") == "info: no results in upload"
    assert redactor("info@example.org/results/x1/upload") == MARK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("404 from GET https://g.globus.org/jane%40x.org/a?b=c", f"404 from GET https://g.globus.org/{MARK}"),
        ("cannot reach https://g.globus.org", "cannot reach https://g.globus.org"),
        ("cannot reach https://jane@x.org/a", f"cannot reach {MARK}"),
        ("cannot reach https://jane%40x.org", f"cannot reach {MARK}"),
        ("no /data/jane here", f"no {MARK} here"),
        ("no jane%2540x.org or jane\\u0040x.org", f"no {MARK} or {MARK}"),
        ("no 'jane.pgen' or jane.vcf.gz: gone", f"no {MARK} or {MARK} gone"),
        ("key 81D5C400-21B4-4E88-8208-8D64C9920283", f"key {MARK}"),
        ("process > 'A:MATCH_COMBINE (Jane)'", "process > 'A:MATCH_COMBINE (redacted)'"),
        ("exit 1: out of memory, 10.5 GB", "exit 1: out of memory, 10.5 GB"),
        ("no 'constraints/gcp.resourceLocations'.", "no 'constraints/gcp.resourceLocations'."),
        ("no constraints/gcp.Jane/jane or constraints/jane.Doe", f"no {MARK} or {MARK}"),
    ],
)  # fmt: skip
def test_of_an_unknown_job_all_goes_that_looks_personal(text, expected):
    with foreign.about(lambda: None):
        assert foreign.clean(text) == expected


def test_an_unknown_job_is_cleaned_in_linear_time():
    text = "a" * 2**20 + "/" * 2**10 + "%25" * 2**18

    assert foreign.clean_unknown(text) == MARK


def test_nothing_is_hidden_once_nobody_hides():
    with foreign.hiding(["secret-of-a-test"]):
        assert foreign.clean("secret-of-a-test") == MARK
    assert foreign.clean("secret-of-a-test") == "secret-of-a-test"


SAID = f"wrong {SECRETS['globus']} for {quote(PERSONAL['e-mail'])}/jane_doe.pgen at JaneDoe1970"
LEAKS = ("globus-secret-2", "jane", "hospital.example", "JaneDoe1970")


def leaks(text):
    return [leak for leak in LEAKS if leak in text]


def by_driver():
    known = redactor_of(request())
    ended = {"terminated": {"exitCode": 1, "message": SAID, "reason": SAID}}
    waits = {"waiting": {"reason": SAID, "message": SAID}}
    scheduled = {"type": "PodScheduled", "status": "False", "message": SAID}
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": SAID}
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "status": {
            "message": SAID,
            "reason": SAID,
            "phase": SAID,
            "conditions": [scheduled, disrupted],
            "initContainerStatuses": [{"name": "transfer", "state": ended}],
            "containerStatuses": [{"name": "calculation", "state": waits}],
        },
    }
    return str(read_pod(raw, lambda text: foreign.clean_for(known, text, is_cut=True)))


def by_driver_of_an_unknown_job():
    ended = {"terminated": {"exitCode": 1, "message": SAID.rpartition(" at ")[0]}}
    statuses = [{"name": "transfer", "state": ended}]
    raw = {"metadata": {"name": "p", "uid": "u"}, "status": {"initContainerStatuses": statuses}}
    return str(read_pod(raw))


def by_kubernetes():
    status = {"kind": "Status", "reason": "Forbidden", "message": SAID}
    return str(error_for(403, {}, json.dumps(status).encode(), target="GET /x"))


def by_kubernetes_in_its_reason():
    status = {"kind": "Status", "reason": SAID, "message": SAID}
    return str(error_for(403, {}, json.dumps(status).encode(), target="GET /x"))


def by_kubernetes_in_the_reason_of_an_event():
    regarding = {"kind": SAID}
    return str(read_cluster_event({"note": SAID, "reason": SAID, "regarding": regarding}))


def by_a_gateway_before_kubernetes():
    with pytest.raises(Exception, match="not JSON") as caught:
        decode(SAID.encode())
    return str(caught.value)


def by_event():
    return str(read_cluster_event({"note": SAID, "reason": "FailedCreate", "type": "Warning"}))


def by_storage():
    return str(of_status(503, f"object data/jane_doe.pgen not deleted: 503 {SAID}"))


def by_storage_library():
    with pytest.raises(Exception, match="get bucket") as caught, mapped("get bucket x"):
        raise google.ServiceUnavailable(SAID)
    return str(caught.value)


DOORS = (
    by_driver,
    by_driver_of_an_unknown_job,
    by_kubernetes,
    by_kubernetes_in_its_reason,
    by_kubernetes_in_the_reason_of_an_event,
    by_a_gateway_before_kubernetes,
    by_event,
    by_storage,
    by_storage_library,
)


@pytest.mark.parametrize("door", DOORS, ids=[door.__name__ for door in DOORS])
def test_no_door_lets_through_what_must_not_be_told(about, door):
    told = door()

    assert MARK in told
    assert leaks(told) == []


async def test_the_doors_to_seqera_and_the_backend_let_nothing_through(hiding):
    known = redactor_of(request())  # passes over all runs are about no job

    def clean(_name, text):
        return foreign.clean_for(known, text, is_cut=True)

    row = {
        "runName": "r",
        "id": SAID,
        "status": SAID,
        "submit": "2026-11-23T12:00:00Z",
        "errorMessage": SAID,
        "errorReport": "x" * 8150 + SAID + "y" * 9000,
    }
    page = {"workflows": [{"workflow": row}], "hasMore": False}
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=page))
    door = Seqera(SETTINGS, transport=transport, interval=0)

    run = (await door.runs({"r": T0}, clean))["r"]

    assert MARK in run.error_message
    assert leaks(str(run)) == []
    assert "globus-se" not in run.error_report
    rest = Rest(
        "https://backend.example.org",
        scheme="Basic",
        token="b-token-of-it",
        timeouts=Timeouts(),
        body_limit=10_000,
        transport=httpx.MockTransport(
            lambda _request: httpx.Response(500, text=f"{quote('b-token-of-it')} {SAID}")
        ),
    )
    with foreign.about(lambda: known):
        answer = await rest.call("GET", "/")
    assert leaks(answer.text) == []
    assert "b-token-of-it" not in answer.text
    await door.close()
    await rest.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("<a href=http://evil>log in</a>", "a href=http://evil log in /a"),
        ("line 1\r\nline 2\x00\x1b[31m\u202e", "line 1 line 2 [31m"),
        ("", "unknown failure"),
        ("<>", "unknown failure"),
        ("x" * 1000, "x" * 512),
        ("wrong globus%2Dsecret%2D2", f"wrong {MARK}"),
        (f"no {PERSONAL['file']}", f"no {MARK}"),
    ],
)
def test_what_the_backend_gets_is_cleaned_where_it_is_sent(about, said, told):
    notice = Notice(sequence=1, event=Event.FAILED, at=T0, trace_name=said, trace_exit=1)

    assert body("INTP1", notice)["trace_name"] == told


@pytest.mark.parametrize("name", ["x", "INTP", "INTP1/../2", "INTP123456789012", "INTP²"])
async def test_what_is_no_job_id_is_never_sent(name):
    asked = []
    transport = httpx.MockTransport(lambda call: asked.append(call) or httpx.Response(200))
    door = Backend(SETTINGS, transport=transport, clock=lambda: T0)
    notice = Notice(sequence=1, event=Event.SUCCEEDED, at=T0)

    assert (await door.tell(name, "u", notice)).answer is Answer.DEAD
    assert (await door.tell("intp1", "u", notice)).answer is Answer.DELIVERED
    assert len(asked) == 1
    await door.close()


def broken():
    raise ValueError(SAID)


def test_a_log_line_holds_no_secret_whoever_wrote_it(about):
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    stream = StringIO()
    try:
        for log_format in ("json", "console"):
            configure_logging(settings(log_format=log_format))
            root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
            log = structlog.get_logger("somebody")
            log.warning("said", text=SAID, nested={"a": [SAID, 1, None]}, odd=ValueError(SAID))
            logging.getLogger("library").warning("%s said %s", "library", SAID)
            try:
                broken()
            except ValueError:
                log.exception("broke")
    finally:
        root.handlers[:], level, config = before
        root.setLevel(level)
        structlog.configure(**config)

    lines = stream.getvalue().splitlines()
    assert sum(MARK in line for line in lines) >= 6
    assert leaks(stream.getvalue()) == []
    assert all(json.loads(line)["severity"] for line in lines[:3])


def test_trim_cleans_before_it_cuts(hiding):
    assert trim("x" * 250 + SECRETS["tower"]) == "x" * 250 + MARK[:6]


BLANKS = (" ", "\n", "\t", "\u00a0", "\u2028")
INVISIBLE = ("\u200b", "\u200d", "\u202e", "\ufeff", "\x00", "\x1b")
MARKUP = ("<", ">", "&", "<b>")
PLAIN_LINES = {"trim": trim, "plain line": partial(foreign.plain_line, most=512)}
FOLDER = PERSONAL["part of the folder"]


@pytest.mark.parametrize("to_line", PLAIN_LINES.values(), ids=PLAIN_LINES)
@given(data=st.data())
def test_no_value_is_put_together_by_what_is_taken_out_of_a_text(to_line, data):
    filling = st.text(st.sampled_from("".join((*BLANKS, *INVISIBLE, *MARKUP))), max_size=4)
    words = FOLDER.split(" ")
    text = words[0] + "".join(data.draw(filling) + " " + data.draw(filling) + w for w in words[1:])
    text = data.draw(filling) + text.replace(" ", data.draw(st.sampled_from(BLANKS)))
    with foreign.hiding(secret_values(SETTINGS)), foreign.about(lambda: KNOWN):
        line = to_line(f"no {text} here")

    assert FOLDER not in line


def test_a_value_that_holds_markup_itself_is_found_all_the_same():
    with foreign.hiding(["p<ss & word"]):
        assert foreign.plain_line("wrong p<ss & word", 99) == f"wrong {MARK}"


def by_kubernetes_gateway(text):
    return str(error_for(502, {}, text.encode(), target="GET /x"))


def by_what_is_no_json(text):
    with pytest.raises(Exception, match="not JSON") as caught:
        decode(text.encode())
    return str(caught.value)


@pytest.mark.parametrize("door", [by_kubernetes_gateway, by_what_is_no_json])
def test_a_value_that_a_door_cuts_goes_in_part(hiding, door):
    secret = SECRETS["globus"]
    for kept in range(8, len(secret)):
        told = door(" " * (512 - kept) + secret + " and more")
        assert secret[:8] not in told


async def test_a_value_that_the_door_to_the_backend_cuts_goes_in_part(hiding):
    secret = SECRETS["globus"]
    body = " " * (4096 - 12) + secret + " and more"
    rest = Rest(
        "https://backend.example.org",
        scheme="Basic",
        token="b-token-of-it",
        timeouts=Timeouts(),
        body_limit=10_000,
        transport=httpx.MockTransport(lambda _request: httpx.Response(500, text=body)),
    )
    assert (await rest.call("GET", "/")).text == MARK
    await rest.close()


def test_a_value_that_the_door_to_seqera_cuts_goes_in_part(hiding):
    assert seqera._clean("r", f"no {SECRETS['globus'][:12]}") == f"no {MARK}"


def secret_of(made, uid="u"):
    data = base64.b64encode(json.dumps(made.model_dump()).encode()).decode()
    owner = {"name": "intp1", "uid": uid}
    return {"metadata": {"ownerReferences": [owner]}, "data": {"request.json": data}}


def test_a_request_is_learned_from_the_secret_of_this_very_job_alone():
    personal, secret = Personal(), secret_of(request())

    assert not personal.learn("another uid", secret)
    assert not personal.learn("u", None)
    assert not personal.learn("u", {**secret, "data": {"request.json": "bm8="}})
    assert not personal.learn("u", {**secret, "data": {}})
    assert personal.of("u") is None
    assert personal.learn("u", secret)
    assert not personal.learn("u", secret)
    known = personal.of("u")
    assert known is not None
    assert known("no jane_doe.pgen") == f"no {MARK}"
    personal.forget("u")
    assert personal.of("u") is None


def test_the_memory_of_requests_is_bounded():
    personal = Personal(most_bytes=1000)

    for number in range(20):
        personal.learn(f"u{number}", secret_of(request(), f"u{number}"))

    kept = [number for number in range(20) if personal.of(f"u{number}") is not None]
    assert kept
    assert kept == list(range(20 - len(kept), 20))
    assert sum(redactor.size for redactor in personal._known.values()) <= 1000


def test_a_redactor_without_values_changes_nothing():
    assert Redactor()("text") == "text"
