"""When the namespace is being deleted: what is known, who may act, what is done, what is said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from builders import INSTALLATION, NAMES, T0, at, ended, job, run, running, seen, settings
from kube_scripted import HTML, Step, answer, failure, missing, scripted
from kube_scripted import running as in_background
from patience import PATIENCE
from stage import FAST, JOB, Stage, launch_body, service_on, staged
from structlog.testing import capture_logs

from pyvatti.errors import NamespaceTerminating, NotOurs, PyvattiError, Unavailable
from pyvatti.jobs import id_names
from pyvatti.kube import CONFIGMAPS, Home
from pyvatti.kube import home as home_module
from pyvatti.labels import FINALIZER, FOREGROUND
from pyvatti.lifecycle import escape
from pyvatti.lifecycle.departure import Departure
from pyvatti.models import Delivery, Event, Notice, Removal, RunStatus, State, Verdict
from pyvatti.policy import Observed, Progress, decide, judge
from pyvatti.policy import actions as act
from pyvatti.policy.limits import in_haste
from pyvatti.sandbox.driver_plans import PLANS
from pyvatti.sandbox.kube.resources import CONFIGMAPS as STORED_CONFIGMAPS
from pyvatti.sandbox.kube.resources import LEASES, NAMESPACES
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.storage import BucketInfo

SINCE = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
TERMINATING = failure(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}])
HASTE = in_haste(settings())
KNOWN = Progress(accepted=True, transfer_gone=True, going_seen_at=T0)


def namespace(uid: str = "u1", **metadata: Any) -> Step:
    """Answer as the API server does about our Namespace."""
    kept = {"name": "demo", "uid": uid, "resourceVersion": "1"}
    return answer({"apiVersion": "v1", "kind": "Namespace", "metadata": kept | metadata})


GOING = namespace(deletionTimestamp="2026-11-28T09:00:00Z")


# What Home knows


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(failure(403, "Forbidden"), id="403"),
        pytest.param(TERMINATING, id="a 403 that speaks of another call"),
        pytest.param(missing("demo"), id="404"),
        pytest.param(failure(500, "InternalError"), id="500"),
        pytest.param(HTML, id="a page"),
        pytest.param(namespace(deletionTimestamp="soon"), id="no time"),
        pytest.param(answer({"kind": "Status", "status": "Success"}), id="a Status"),
    ],
)
async def test_no_odd_answer_proves_that_the_namespace_goes(tmp_path: Path, odd: Step):
    async with scripted(tmp_path, GET=[namespace(), odd]) as (_, client):
        home = Home(client, "it")
        assert await home.look() is False

        with pytest.raises(PyvattiError):
            await home.look()

        assert not home.is_going
        home.require_staying()


async def test_the_namespace_itself_says_since_when_it_goes_and_is_asked_no_more(tmp_path: Path):
    async with scripted(tmp_path, GET=[namespace(), GOING, HTML]) as (server, client):
        home = Home(client, "it")
        assert [await home.look() for _ in range(4)] == [False, True, True, True]

        assert home.going_since == SINCE
        assert len(server.seen("GET")) == 2
        with pytest.raises(Unavailable, match="being deleted"):
            home.require_staying()


async def test_a_refused_creation_makes_it_look_at_once_but_not_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(home_module, "LEAST_PAUSE", 0.05)
    monkeypatch.setattr(home_module, "LOOK_PAUSE", 3600.0)
    steps = {"GET": [namespace(), namespace(), GOING], "POST": [TERMINATING]}
    async with scripted(tmp_path, **steps) as (server, client):
        home = Home(client, "it")
        async with in_background(home.run()):
            await home.wait()
            async with asyncio.timeout(20):
                while not home.is_going:
                    with pytest.raises(NamespaceTerminating):
                        await client.create(CONFIGMAPS, {"metadata": {"name": "x"}})

        assert len(server.seen("GET")) == 3


async def test_another_namespace_of_the_name_ends_the_process(tmp_path: Path):
    async with scripted(tmp_path, GET=[namespace(), GOING, namespace("u2")]) as (_, client):
        home = Home(client, "it")
        await home.look()
        await home.look()

        with pytest.raises(NotOurs, match="another Namespace"):
            await home._read()


# What is judged and done: (id, observation, verdict's reason or None, next step)

FAILED = Verdict(state=State.FAILED, reason="NamespaceTerminating", message="m")
NOTICE = (Notice(sequence=1, event=Event.FAILED, at=T0),)
TOLD = (replace(NOTICE[0], delivery=Delivery.DELIVERED),)
LIVE = running()
KILLED = running(phase="Failed", main_running=False, main_end=ended(code=143))
UNTOLD = job(State.FAILED, verdict=FAILED, outbox=NOTICE, deleting_since=T0)
CLEAN = replace(
    KNOWN,
    stop_sent=True,
    transfer_gone=True,
    strays_gone=True,
    removals=tuple(
        Removal(resource=name, removed_at=T0, proven_absent_at=T0)
        for name in (
            f"bucket/{NAMES.work_bucket}",
            f"bucket/{NAMES.results_bucket}",
            f"secret/{NAMES.base}",
            f"secret/{NAMES.transfer_secret}",
            f"pods/{NAMES.base}",
        )
    ),
)


def going(of: Any = None, *pods: Any, **changes: Any) -> Observed:
    """Make an observation in a namespace whose deletion began at T0 and is known since then."""
    return seen(of, *pods, **({"going_since": T0, "progress": KNOWN} | changes))


ROWS = [
    (
        "a job that runs is failed at once",
        going(job(State.DEPLOYED), LIVE),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "a job that was just released too",
        going(job(State.CREATED)),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "and one that is queued",
        going(job(State.REQUESTED), asked_at=None),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "Seqera is asked first: the run may have ended before",
        going(job(State.DEPLOYED), LIVE, asked_at=at(-1)),
        None,
        act.AskSeqera,
    ),
    (
        "though an end was known, and asked about, before it was known to be the namespace's",
        going(
            job(State.DEPLOYED),
            KILLED,
            asked_at=at(1),
            progress=replace(KNOWN, end_seen_at=T0, going_seen_at=at(2)),
        ),
        None,
        act.AskSeqera,
    ),
    (
        "a job that Kueue stopped is not waited for",
        going(job(State.CREATED, suspended=True), asked_at=at(-1)),
        None,
        act.AskSeqera,
    ),
    (
        "a success counts",
        going(job(State.DEPLOYED), LIVE, run=run(RunStatus.SUCCEEDED)),
        "RunSucceeded",
        act.Enter,
    ),
    (
        "a failure of its own counts",
        going(job(State.DEPLOYED), LIVE, run=run(RunStatus.FAILED, exit_status=3)),
        "TaskFailed",
        act.Enter,
    ),
    (
        "a run that says SIGTERM died with the namespace",
        going(
            job(State.DEPLOYED),
            LIVE,
            run=run(RunStatus.FAILED, error_message="SIGTERM", error_report="SIGTERM"),
        ),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "a driver that was killed died with the namespace",
        going(job(State.DEPLOYED), KILLED),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "a driver that had died before is judged by its exit, without a grace",
        going(job(State.DEPLOYED), KILLED, going_since=at(1)),
        "DriverStopped",
        act.Enter,
    ),
    (
        "a driver that had finished before succeeded",
        going(
            job(State.DEPLOYED),
            replace(KILLED, phase="Succeeded", main_end=ended()),
            going_since=at(1),
        ),
        "SucceededUnconfirmed",
        act.Enter,
    ),
    (
        "the namespace deleted the Job",
        going(job(State.DEPLOYED, deleting_since=at(1)), LIVE),
        "NamespaceTerminating",
        act.Enter,
    ),
    (
        "somebody had cancelled it before",
        going(job(State.DEPLOYED, deleting_since=at(-1)), LIVE),
        "Cancelled",
        act.Enter,
    ),
    (
        "what was not accepted is withdrawn",
        going(job(State.REQUESTED, transitions={}), progress=Progress(going_seen_at=T0)),
        None,
        act.Withdraw,
    ),
    (
        "a job is stopped at once: no driver may finish alone",
        going(job(State.FAILED, verdict=FAILED, outbox=NOTICE), LIVE),
        None,
        act.StopJob,
    ),
    (
        "nothing is removed while pods may write",
        going(replace(UNTOLD, finalizers=(FINALIZER, FOREGROUND)), LIVE),
        None,
        None,
    ),
    ("nothing is let go before the backend is told", going(UNTOLD, progress=CLEAN), None, None),
    (
        "then the record is tried",
        going(replace(UNTOLD, outbox=TOLD), progress=CLEAN),
        None,
        act.WriteRecord,
    ),
]


@pytest.mark.parametrize(
    ("observed", "reason", "step"),
    [pytest.param(*row[1:], id=row[0]) for row in ROWS],
)
def test_what_is_judged_and_done(observed: Observed, reason: str | None, step: Any):
    if not observed.job.state.is_terminal:
        verdict = judge(observed, at(3), HASTE)
        assert (verdict.reason if verdict else None) == reason
    steps = decide(observed, at(3), HASTE)
    assert (type(steps[0]) if steps else None) is step


def test_a_namespace_that_stays_changes_nothing():
    assert judge(seen(job(State.DEPLOYED), LIVE), at(3), settings()) is None


# What is done when the process is told to stop


class Scene:
    """A departure among stand-ins: what the namespace answers, the jobs, who may act."""

    def __init__(self, *looks: bool | Exception, grace: float = 0.3, **changes: Any) -> None:
        self.looks, self.asked = list(looks), 0
        self.jobs = [job(State.DEPLOYED)]
        self.listed: list[str] | Exception = []
        self.elector = SimpleNamespace(is_shut_out=False)
        self.supervisor = SimpleNamespace(failure="")
        whose = SimpleNamespace(
            is_synced=True,
            jobs=lambda: self.jobs,
            removals=lambda _uid: (),
            listen=lambda _listener: None,
            ignore=lambda _listener: None,
        )
        doors = SimpleNamespace(
            home=SimpleNamespace(look=self._look),
            cache=whose,
            settings=settings(stop_grace=timedelta(seconds=grace), **changes),
            storage=SimpleNamespace(list_buckets=self._list),
            installation=INSTALLATION,
            kube=SimpleNamespace(namespace="intervene-dev"),
        )
        made: Any = (doors, self.elector, self.supervisor, lambda: None)
        self.departure = Departure(*made)

    async def _look(self) -> bool:
        self.asked += 1
        said = self.looks.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def _list(self, prefix: str) -> list[BucketInfo]:
        if isinstance(self.listed, Exception):
            raise self.listed
        ours = {
            "managed-by": "pyvatti",
            "instance": INSTALLATION.instance,
            "namespace-uid": INSTALLATION.namespace_uid,
        }
        return [
            BucketInfo(name=name, labels=ours, created_at=None)
            for name in self.listed
            if name.startswith(prefix)
        ] + [BucketInfo(name="of-another", labels=ours | {"namespace-uid": "x"}, created_at=None)]

    async def told(self) -> list[Any]:
        """Stop, and give the lines of the log."""
        with capture_logs() as lines:
            async with asyncio.timeout(PATIENCE):
                await self.departure.see_through()
        return lines


AWAY = Unavailable("no answer")


@pytest.mark.parametrize(
    ("looks", "asked"),
    [
        pytest.param([False], 1, id="it stays"),
        pytest.param([AWAY, False], 2, id="it stays, at the second look"),
        pytest.param([AWAY, AWAY, AWAY], 3, id="nobody says anything"),
    ],
)
async def test_a_normal_stop_waits_for_nothing(looks: list[bool | Exception], asked: int):
    scene = Scene(*looks, grace=3600)

    lines = await scene.told()

    assert scene.asked == asked
    assert [line["event"] for line in lines if line["log_level"] != "info"] == []


async def test_a_stop_with_the_namespace_ends_when_no_job_is_left():
    scene = Scene(AWAY, True, grace=3600)
    asyncio.get_running_loop().call_later(0.05, scene.jobs.clear)

    lines = await scene.told()

    assert [line["event"] for line in lines][-2:] == [
        "stopping with the namespace: cleaning up first",
        "nothing is left to do in this namespace",
    ]


@pytest.mark.parametrize("why", ["the grace is over", "shut out", "a part of the service ended"])
async def test_what_was_not_done_is_said_with_what_finishes_it(why: str):
    scene = Scene(True, grace=0.1 if why == "the grace is over" else 3600)
    scene.elector.is_shut_out = why == "shut out"
    scene.supervisor.failure = why if why.startswith("a part") else ""
    of_a_success = "intervene-dev-intp00000000999-results"
    scene.listed = [NAMES.work_bucket, of_a_success]

    lines = await scene.told()

    (left,) = [line for line in lines if line["log_level"] == "error"]
    assert left["finish_with"] == [
        f"gcloud storage rm -r gs://{NAMES.work_bucket}",
        f"pyvatti jobs release {NAMES.job_id} --namespace intervene-dev",
    ]
    (results,) = [line for line in lines if "results stay" in line["event"]]
    assert results["remove_with"] == f"gcloud storage rm -r gs://{of_a_success}"


async def test_the_results_of_a_long_namespace_are_named_too():
    long = "a-namespace-of-thirty-seven-letters-x"
    results = id_names("intp00000000999", long).results_bucket
    scene = Scene(True, namespace=long)
    scene.jobs, scene.listed = [], [results]

    lines = await scene.told()

    assert [line["buckets"] for line in lines if "results stay" in line["event"]] == [[results]]


async def test_buckets_are_named_even_if_nobody_can_list_them():
    scene = Scene(True, grace=0.1)
    scene.listed = AWAY

    lines = await scene.told()

    (left,) = [line for line in lines if line["log_level"] == "error"]
    assert left["buckets"] == [NAMES.work_bucket, NAMES.results_bucket]


async def test_results_of_a_success_are_not_called_left_undone():
    scene = Scene(True, grace=0.1)
    scene.jobs = [job(State.SUCCEEDED, outbox=NOTICE)]
    scene.listed = [NAMES.work_bucket, NAMES.results_bucket]

    lines = await scene.told()

    (left,) = [line for line in lines if line["log_level"] == "error"]
    assert left["buckets"] == [NAMES.work_bucket]
    assert left["untold"] == ["failed"]


# Stories


def drop_namespace(on: Stage) -> None:
    on.world.kube.store.delete(NAMESPACES, "", on.world.namespace, propagation="Background")


def is_gone(on: Stage) -> bool:
    return on.world.kube.store.find(NAMESPACES, "", on.world.namespace) is None


async def ask_for_ever(on: Stage) -> None:
    async with asyncio.timeout(30):
        while True:
            await on.client.get("/healthz")


def keep_namespace(on: Stage) -> None:
    """Let something of somebody else's hold the namespace."""
    held = {"metadata": {"name": "held", "finalizers": ["example.org/held"]}}
    on.world.kube.store.create(STORED_CONFIGMAPS, on.world.namespace, held)


@asynccontextmanager
async def unordered(plan: str, **changes: str) -> AsyncIterator[Stage]:
    """Run the service on a cluster that deletes all kinds at once, as before Kubernetes 1.33."""
    world = World(plans=lambda _pod: PLANS[plan], speed=20.0, rate_limit=False)
    world.kube.ordered_deletion = False
    async with staged(FAST | changes, world) as on:
        yield on


async def test_everything_goes_at_once_the_lease_first_and_the_holder_goes_on():
    async with unordered("long_run") as on:
        await on.launch()
        await on.until_state("Deployed")
        await on.launch("INTP00000000514")

        on.world.backend.down = True
        drop_namespace(on)
        await on.until(lambda: not on.world.storage.buckets, "buckets go before the backend hears")
        answers = [
            await on.client.get("/readyz"),
            await on.client.post("/launch", json=launch_body("INTP00000000515")),
        ]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all("namespace is being deleted" in answer.text for answer in answers)
        on.world.backend.down = False
        await on.until(lambda: is_gone(on), "the namespace goes")

        assert on.told()[-1] == "failed"
        assert on.told("INTP00000000514")[-1] == "failed"
        assert on.leftovers() == []
        with pytest.raises(httpx.TransportError):  # the process has nothing left to do, and ends
            await ask_for_ever(on)


async def test_results_outlive_the_records_that_go_with_the_namespace():
    async with unordered("success", SWEEP_INTERVAL="0.2", STOP_GRACE="0.5") as on:
        await on.launch()
        await on.until_finished()
        keep_namespace(on)
        on.world.backend.down = True
        await on.launch("INTP00000000514")  # its end cannot be told: the service stays
        for bucket in on.world.storage.buckets.values():
            bucket.created = datetime.now(UTC) - timedelta(hours=2)

        drop_namespace(on)
        record = f"{JOB.lower()}-record"
        await on.until(lambda: record not in on.world.objects("ConfigMap"), "the record goes")
        before = len(on.world.storage.requests)
        await on.until(
            lambda: (
                sum("/b?" in item.path for item in list(on.world.storage.requests)[before:]) > 2
            ),
            "the sweeper looks",
        )

        assert f"intervene-dev-{JOB.lower()}-results" in on.world.storage.buckets


async def test_an_operator_finishes_what_nobody_serves(tmp_path: Path):
    """The service is uninstalled with a live job, then the namespace is deleted."""
    world = World(plans=lambda _pod: PLANS["long_run"], speed=20.0, rate_limit=False)
    async with world:
        kept = tmp_path / "kept"
        kept.mkdir()
        environment = world.environment(kept) | FAST
        named = {key.lower(): value for key, value in environment.items()}
        given = Settings.model_validate(named)
        async with service_on(world, given) as on:
            await on.launch()
            await on.until_state("Deployed")
        drop_namespace(on)
        store, home = world.kube.store, world.namespace
        await on.until(lambda: not store.list(LEASES, home), "the Lease goes")
        async with service_on(world, given) as late:  # comes too late: it never held the Lease
            await late.until(
                lambda: late.world.kube.requests[-1].resource == "namespaces", "it looks"
            )
            assert store.list(LEASES, home) == []
        assert world.objects("Job") == [JOB.lower()]
        assert len(world.storage.buckets) == 2

        buckets = await escape.release(JOB, namespace=home, kubeconfig=environment["KUBECONFIG"])

        assert sorted(buckets) == sorted(world.storage.buckets)
        await on.until(lambda: is_gone(on), "the namespace goes")
