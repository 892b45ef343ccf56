"""Whole stories: the running service on the sandbox, seen through its API and the world."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from kubectl_calls import Kubectl, lines
from patience import PATIENCE, stopwatch
from stage import JOB, Stage, launch_body, payload, stage

from pyvatti.sandbox.kube.jobcontroller import KueueStandIn
from pyvatti.sandbox.kube.resources import EVENTS, JOBS, PODS, RESOURCEQUOTAS
from pyvatti.sandbox.storage import error_form

BASE = JOB.lower()
RESULTS = f"intervene-dev-{BASE}-results"
REFUSED = '{"kind": "Status", "code": 422, "reason": "Invalid", "message": "no"}'
OTHER = "INTP00000000514"


async def test_a_job_succeeds_and_only_its_results_and_record_are_left():
    async with stage() as on:
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert on.told()[-1] == "succeeded"
        assert on.world.objects("Secret") == []
        assert on.world.objects("Pod") == []
        assert list(on.world.storage.buckets) == [RESULTS]
        assert f"{BASE}-record" in on.world.objects("ConfigMap")


async def test_results_lie_where_the_backend_reads_them():
    async with stage() as on:
        await on.launch()
        await on.until_finished()

        found = [
            name for name in on.world.storage.leftovers() if "results/results/test/score" in name
        ]
        assert [name.rpartition("/")[2] for name in sorted(found)] == [
            "aggregated_scores.txt.gz",
            "report.html",
        ]


async def test_a_job_costs_at_most_13_writes():
    async with stage(POLL_INTERVAL="0.05", speed=4.0) as on:
        await on.launch()
        shown = await on.until_finished()

        assert on.told() == ["deployed", "succeeded"]
        assert shown["deliveries"][0]["delivery"] == "delivered"
        assert len(on.writes()) <= 13, on.writes()


FAILURES = [
    pytest.param("transfer_fails", "TransferFailed", 1, id="fault 28: the transfer fails"),
    pytest.param("transfer_preempted", "MachinePreempted", 1, id="the transfer's machine goes"),
    pytest.param("transfer_cannot_start", "TransferCannotStart", 1, id="GitLab is away"),
    pytest.param("driver_cannot_start", "DriverCannotStart", 1, id="GitLab is away later"),
    pytest.param("heap_exhausted", "DriverOutOfMemory", 3, id="the driver's heap is exhausted"),
    pytest.param("match_rate_too_low", "MatchRateError", 14, id="a task fails: match rate"),
    pytest.param("task_failure", "InvalidAccessionError", 12, id="a task fails: unknown score"),
    pytest.param("image_cannot_be_pulled", None, 1, id="fault 30: the image cannot be pulled"),
    pytest.param("driver_killed", "DriverOutOfMemory", 1, id="fault 31: the driver is killed"),
    pytest.param("cancelled_in_seqera", "Cancelled", 1, id="fault 19: cancelled in Seqera"),
]


@pytest.mark.parametrize(("plan", "reason", "code"), FAILURES)
async def test_a_failure_is_told_once_with_its_reason_and_leaves_nothing(plan, reason, code):
    async with stage(plan) as on:
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Failed"
        assert reason in (None, shown["verdict"]["reason"])
        assert on.told().count("failed") == 1
        body = on.world.backend.received[-1].body
        assert (body["event"], body["trace_exit"]) == ("failed", code)
        assert body["trace_name"]
        assert on.leftovers() == []


async def test_fault_26_a_driver_without_telemetry_ends_as_succeeded_unconfirmed():
    async with stage("seqera_silent") as on:
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert shown["verdict"]["reason"] == "SucceededUnconfirmed"
        assert "a report is" in shown["verdict"]["message"]


async def test_fault_32_a_driver_that_hangs_after_its_run_is_stopped_and_the_state_stands():
    async with stage("driver_hangs") as on:
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert on.told()[-1] == "succeeded"
        assert on.world.objects("Pod") == []


async def test_fault_01_five_concurrent_launches_make_one_job():
    async with stage() as on:
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(on.client.post("/launch", json=launch_body())) for _ in range(5)
            ]

        assert [call.result().status_code for call in calls] == [201] * 5
        await on.until_finished()
        assert on.writes().count("create jobs.batch") == 1  # the name is the lock
        assert on.told().count("succeeded") == 1


async def test_fault_03_an_identical_repeat_changes_nothing():
    async with stage("slow") as on:
        await on.launch()
        await on.until_state("Created")
        again = launch_body()
        again["globus_details"]["files"].reverse()
        before = on.writes()

        answer = await on.client.post("/launch", json=again)

        assert (answer.status_code, answer.json()) == (201, {"id": JOB})
        attempts = on.writes()[len(before) :]
        assert set(attempts) <= {"create jobs.batch"}


async def test_fault_03_another_body_of_a_live_id_is_a_conflict_and_changes_nothing():
    async with stage("slow") as on:
        await on.launch()
        shown = await on.until_state("Created")
        other = launch_body()
        other["pipeline_param"]["nxf_params_file"]["trait_efo"] = "EFO_0004611"

        answer = await on.client.post("/launch", json=other)

        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert isinstance(answer.json()["detail"], str)
        assert (await on.show())["state"] == shown["state"]


async def test_fault_03_and_42_a_finished_id_is_a_conflict_and_its_results_stay():
    async with stage() as on:
        await on.launch()
        await on.until_finished()
        kept = on.world.storage.leftovers()

        answer = await on.client.post("/launch", json=launch_body())

        assert answer.status_code == 409
        await on.until(lambda: not on.world.objects("Job"), "the new Job is withdrawn")
        assert on.world.storage.leftovers() == kept
        assert on.told().count("failed") == 0
        assert (await on.show())["state"] == "Succeeded"


async def test_fault_04_a_refused_launch_never_fails_the_job_that_runs():
    async with stage("slow") as on:
        await on.launch()
        await on.until_state("Created")
        other = launch_body()
        other["pipeline_param"]["nxf_params_file"]["target_build"] = "GRCh37"
        for body in (other, {"pipeline_param": {"id": JOB}}, launch_body()):
            await on.client.post("/launch", json=body)

        assert "failed" not in on.told()
        assert (await on.show())["state"] in ("Created", "Deployed")


async def test_fault_05_a_bad_body_names_the_field_and_nothing_is_made():
    async with stage() as on:
        answer = await on.client.post(
            "/launch", json=payload("launch-bad-sampleset-injection.json")
        )

        assert answer.status_code == 422
        fields = [".".join(map(str, item["loc"])) for item in answer.json()["detail"]]
        assert "body.pipeline_param.target_genomes.0.sampleset" in fields
        assert on.writes() == []


async def test_fault_09_a_launch_is_answered_while_storage_hangs():
    async with stage() as on:
        rule = on.world.storage.faults.add("*", ".*", "hang")
        await on.launch()
        await on.until(lambda: rule.hits > 0, "storage is being called")

        async with stopwatch() as seconds:
            await on.launch(OTHER)
            assert seconds() < 1
        waiting = (await on.show())["waiting"]
        assert waiting["on"] == "buckets"


async def test_fault_10_the_limit_is_exact_and_the_rest_waits():
    async with stage(MAX_CONCURRENT_JOBS="2", speed=10.0) as on:
        ids = [f"INTP{number:011}" for number in range(1, 7)]
        most = 0

        def count(_change: str, resource: Any, _new: Any, _old: Any) -> None:
            nonlocal most
            if resource.kind == "Job":
                jobs = on.world.kube.store.list(resource, "intervene-dev")
                live = [
                    job
                    for job in jobs
                    if not job["spec"].get("suspend")
                    and job["metadata"]["labels"]["hattivatti.geneticscores.org/state"]
                    in ("Created", "Deployed")
                ]
                most = max(most, len(live))

        on.world.kube.store.subscribe(count)
        for job_id in ids:
            await on.launch(job_id)
        waiting = [(await on.show(job_id)).get("waiting") for job_id in ids[2:]]
        for job_id in ids:
            await on.until_finished(job_id)

        assert most == 2
        assert {item["on"] for item in waiting if item} == {"slot"}
        assert [on.told(job_id)[-1] for job_id in ids] == ["succeeded"] * 6


async def test_fault_10_a_job_whose_pod_a_quota_refuses_waits_and_runs_later():
    async with stage(speed=10.0) as on:
        kube = on.world.kube
        quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
        kube.store.create(RESOURCEQUOTAS, "intervene-dev", quota)
        await on.launch()
        await on.until_state("Created")
        await on.until(lambda: any("quota" in str(item) for item in notes(on)), "the quota refuses")

        kube.store.delete(RESOURCEQUOTAS, "intervene-dev", "few", propagation="Background")

        assert (await on.until_finished())["state"] == "Succeeded"


def notes(on: Stage) -> list[str]:
    """Give the notes of all Events of the cluster."""
    return [
        item.get("note") or item.get("message", "") for item in on.world.kube.store.list(EVENTS)
    ]


async def test_fault_11_a_bucket_name_taken_by_somebody_else_fails_the_job_and_stays():
    async with stage() as on:
        on.world.storage.add_bucket(RESULTS, project="somebody-else")
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Failed"
        assert shown["verdict"]["reason"] == "MakeBucketRefused"
        assert on.told() == ["failed"]
        assert list(on.world.storage.buckets) == [RESULTS]


async def test_fault_11_a_bucket_that_is_refused_fails_the_job_once_and_leaves_nothing():
    async with stage() as on:
        body = json.dumps(error_form(400, "invalid", "no"))
        on.world.storage.faults.add("POST", r"/b\?", "status", status=400, body=body)
        await on.launch()
        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "MakeBucketRefused"
        assert on.told() == ["failed"]
        assert on.leftovers() == []


async def test_fault_11_a_transfer_secret_that_is_refused_fails_the_job_once():
    async with stage(BUCKET_INTERVAL="0.3") as on:
        await on.launch()
        on.world.kube.faults.add("POST", "/secrets", "status", status=422, body=REFUSED)
        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "MakeTransferSecretRefused"
        assert on.told() == ["failed"]
        assert on.leftovers() == []


async def test_fault_12_a_manifest_the_api_server_refuses_is_not_accepted():
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs", "status", status=422, body=REFUSED)

        answer = await on.client.post("/launch", json=launch_body())

        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert on.world.objects("Job") == []
        assert (await on.client.get(f"/jobs/{JOB}")).status_code == 404


async def test_a_launch_whose_secret_cannot_be_written_is_refused_and_withdrawn_silently():
    async with stage() as on:
        on.world.kube.faults.add("POST", "/secrets", "status", status=500, count=1)

        answer = await on.client.post("/launch", json=launch_body())

        assert answer.status_code == 503
        await on.until(lambda: not on.world.objects("Job"), "the Job is withdrawn")
        assert on.told() == []
        assert on.world.storage.leftovers() == []
        await on.launch()
        assert (await on.until_finished())["state"] == "Succeeded"


async def test_a_launch_whose_answer_was_lost_can_be_repeated():
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs", "after", count=1)

        first = await on.client.post("/launch", json=launch_body())
        await on.until(lambda: not on.world.objects("Job"), "the half made Job is withdrawn")
        await on.launch()

        assert first.status_code == 503
        assert (await on.until_finished())["state"] == "Succeeded"
        assert on.told().count("succeeded") == 1


async def test_fault_14_one_bad_job_does_not_stop_the_others():
    async with stage(jobs={BASE: "slow"}) as on:
        on.world.storage.faults.add("POST", r"/b\?", "status", status=503, count=None)
        await on.launch()
        await on.until_state("Requested")
        on.world.storage.faults.clear()
        on.world.storage.faults.add("*", BASE, "status", status=503)
        await on.launch(OTHER)

        assert (await on.until_finished(OTHER))["state"] == "Succeeded"
        assert (await on.show())["live"]


async def test_fault_29_what_the_pod_said_is_kept_when_it_vanishes():
    async with stage("driver_killed", FAILED_GRACE="1") as on:
        await on.launch()
        await on.until(lambda: bool(on.world.objects("Pod")), "the pod is made")
        await on.until(lambda: _ended(on), "the driver ended")
        pod = on.world.objects("Pod")[0]
        on.world.kube.store.delete(
            PODS, "intervene-dev", pod, propagation="Background", grace_seconds=0
        )

        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "DriverOutOfMemory"


def _ended(on: Stage) -> bool:
    pods = on.world.kube.store.list(PODS, "intervene-dev")
    statuses = [item for pod in pods for item in pod["status"].get("containerStatuses", [])]
    return any("terminated" in item["state"] for item in statuses)


async def test_fault_36_an_outage_of_the_backend_delays_nothing_and_loses_nothing():
    async with stage("transfer_fails") as on:
        on.world.backend.down = True
        await on.launch()
        await on.until(lambda: bool(on.world.backend.received), "the backend refuses")
        await on.until(lambda: not on.world.storage.leftovers(), "all data is deleted meanwhile")
        assert (await on.show())["waiting"]["on"] == "backend"

        on.world.backend.down = False

        shown = await on.until_finished()
        assert on.told() == ["failed"]
        assert shown["deliveries"][-1]["delivery"] == "delivered"


async def test_fault_37_an_undelivered_deployed_is_dropped_once_the_job_ended():
    async with stage(speed=10.0) as on:
        on.world.backend.down = True
        await on.launch()
        await on.until_state("Succeeded")
        on.world.backend.down = False
        await on.until_finished()

        assert on.told() == ["succeeded"]


async def test_fault_39_failing_clean_up_does_not_block_the_notification():
    async with stage("transfer_fails") as on:
        on.world.storage.faults.add("DELETE", ".*", "status", status=503)
        await on.launch()
        await on.until(lambda: on.told() == ["failed"], "the backend is told")
        assert on.world.work_bucket(BASE)

        on.world.storage.faults.clear()

        await on.until_finished()
        assert on.leftovers() == []


@pytest.mark.parametrize("at", ["Requested", "Created", "Deployed"])
async def test_a_cancelled_job_is_stopped_cleaned_up_and_told_once(at: str):
    more = {"BUCKET_INTERVAL": "60"} if at == "Requested" else {}
    async with stage("slow", speed=40.0 if at == "Deployed" else 10.0, **more) as on:
        await on.launch()
        await on.until_state(at)

        answers = [await on.client.delete(f"/jobs/{JOB}") for _ in range(2)]
        if at == "Requested":
            return await _finish_queued(on, answers)
        shown = await on.until_finished()

        assert [answer.status_code for answer in answers] == [202, 202]
        assert (shown["state"], shown["verdict"]["reason"]) == ("Failed", "Cancelled")
        assert on.told()[-1] == "failed"
        assert on.told().count("failed") == 1
        assert on.leftovers() == []
    return None


async def _finish_queued(on: Stage, answers: list[Any]) -> None:
    await on.until(lambda: on.told() == ["failed"], "the backend is told at once")
    assert [answer.status_code for answer in answers] == [202, 202]
    assert (await on.show())["verdict"]["reason"] == "Cancelled"


async def test_cancel_of_what_is_not_there_or_finished_is_refused():
    async with stage() as on:
        unknown = await on.client.delete(f"/jobs/{JOB}")
        await on.launch()
        await on.until_finished()
        finished = await on.client.delete(f"/jobs/{JOB}")

        assert (unknown.status_code, finished.status_code) == (404, 409)


@pytest.mark.parametrize("propagation", ["Foreground", "Background", "Orphan"])
async def test_a_job_deleted_by_hand_is_cancelled_whatever_the_propagation(propagation: str):
    async with stage("slow", speed=40.0) as on:
        await on.launch()
        await on.until_state("Deployed")

        on.world.kube.store.delete(JOBS, "intervene-dev", BASE, propagation=propagation)

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "Cancelled"
        assert on.told()[-1] == "failed"
        assert on.leftovers() == []


async def test_the_credentials_of_the_transfer_are_gone_while_the_calculation_runs():
    async with stage("slow", speed=40.0) as on:
        await on.launch()
        await on.until_state("Deployed")

        await on.until(lambda: on.world.objects("Secret") == [BASE], "they are deleted")


async def test_what_the_transfer_staged_in_the_work_bucket_is_gone_while_the_calculation_runs():
    async with stage("slow", speed=40.0) as on:

        def staged() -> list[str]:
            return [name for name in on.world.storage.leftovers() if "/stage-" in name]

        await on.launch()
        await on.until(lambda: any("application.properties" in name for name in staged()), "staged")
        await on.until_state("Deployed")

        await on.until(lambda: staged() == [], "they are deleted")

        assert BASE in on.world.objects("Job")
        assert any("/data/" in name for name in on.world.storage.leftovers())


async def test_fault_45_no_secret_is_in_any_object_but_secrets():
    values = ["sandbox-globus-secret", "sandbox-key-password", "c2FuZGJveDprZXloYW5kbGVy"]
    async with stage("slow", speed=40.0) as on:
        seen: list[str] = []

        def keep(_change: str, resource: Any, new: Any, _old: Any) -> None:
            if resource.kind != "Secret":
                seen.append(str(new))

        on.world.kube.store.subscribe(keep)
        values += [on.world.seqera.token, on.world.backend.token]
        await on.launch()
        await on.until_state("Deployed")
        await on.client.delete(f"/jobs/{JOB}")
        await on.until_finished()

        assert [value for value in values if any(value in text for text in seen)] == []


async def test_describe_tells_the_story_by_events_on_the_job(tmp_path: Path):
    async with stage() as on:
        await on.launch()
        await on.until_finished()
        reasons = {"Accepted", "BucketMade", "Released", "Succeeded", "Stopping", "BucketRemoved"}

        await on.until(lambda: reasons <= set(on.events()), f"{reasons} are told")
        shown = await Kubectl(on.world, tmp_path).ok(
            *("events", "--namespace", on.world.namespace, "--for", f"job/{BASE}")
        )

        rows = lines(shown)[1:]
        assert reasons <= {row[2] for row in rows}
        assert {row[3] for row in rows} == {f"Job/{BASE}"}


async def test_the_deletion_report_says_what_was_removed_when_and_how_it_was_proven():
    async with stage("slow", speed=40.0) as on:
        await on.launch()
        live = (await on.client.get(f"/jobs/{JOB}/deletion")).json()
        await on.until(lambda: bool(on.world.work_bucket(BASE)), "the work bucket is made")
        work = on.world.work_bucket(BASE)
        await on.until_finished()

        report = (await on.client.get(f"/jobs/{JOB}/deletion")).json()

        assert (live["complete"], report["complete"]) == (False, True)
        removed = {item["resource"]: item for item in report["removed"]}
        assert set(removed) == {
            f"secret/{BASE}",
            f"secret/{BASE}-transfer",
            f"pods/{BASE}",
            f"bucket/{work}/work/transfer",
            f"bucket/{work}",
        }
        assert all(item["proven_absent_at"] for item in removed.values())
        assert removed[f"bucket/{work}"]["objects"] > 0
        assert removed[f"bucket/{work}"]["bytes"] > 0
        assert report["kept"] == [f"bucket/{RESULTS}", f"configmap/{BASE}-record"]


async def test_a_job_in_its_clean_up_shows_what_is_removed_already():
    async with stage() as on:
        on.world.storage.faults.add("DELETE", "/b/", "status", status=503, count=None)
        await on.launch()
        await on.until_state("Succeeded")

        async def removed() -> list[str]:
            return [item["resource"] for item in (await on.show())["removed"]]

        async with asyncio.timeout(PATIENCE):
            while f"pods/{BASE}" not in await removed():
                await asyncio.sleep(0.01)

        report = (await on.client.get(f"/jobs/{JOB}/deletion")).json()
        work = on.world.work_bucket(BASE)
        assert report["complete"] is False
        assert f"bucket/{work}" not in [item["resource"] for item in report["removed"]]
        on.world.storage.faults.clear()
        await on.until_finished()
        assert f"bucket/{work}" in await removed()


async def test_an_event_the_backend_never_took_can_be_delivered_again():
    async with stage("transfer_fails") as on:
        on.world.backend.known = set()  # 404: the backend does not know the id
        await on.launch()
        shown = await on.until_finished()
        assert shown["deliveries"][0]["delivery"] == "dead"
        refused = await on.client.post(f"/jobs/{JOB}/redeliver")
        on.world.backend.known = None

        answer = await on.client.post(f"/jobs/{JOB}/redeliver")
        again = await on.client.post(f"/jobs/{JOB}/redeliver")

        assert refused.status_code == 503
        assert [item["delivery"] for item in answer.json()["deliveries"]] == ["delivered"]
        assert again.json() == answer.json()
        assert on.told() == ["failed"]
        assert (await on.show())["deliveries"][0]["delivery"] == "delivered"


async def test_an_event_nobody_takes_is_given_up_loudly():
    async with stage("transfer_fails", NOTIFY_GIVE_UP_SECONDS="0.5") as on:
        on.world.backend.down = True
        await on.launch()

        shown = await on.until_finished()

        assert shown["deliveries"][0]["delivery"] == "undelivered"
        await on.until(lambda: any("undelivered" in note for note in notes(on)), "an Event says so")
        metrics = (await on.client.get("/metrics")).text
        assert 'pyvatti_notices_total{delivery="undelivered",event="failed"}' in metrics


async def test_with_kueue_the_queue_alone_decides_when_a_job_starts():
    async with stage(KUEUE_QUEUE="genomes", MAX_CONCURRENT_JOBS="1") as on:
        await on.launch()
        await on.launch(OTHER)
        waiting = [(await until_queued(on, job_id))["waiting"]["on"] for job_id in (JOB, OTHER)]

        async with KueueStandIn(on.world.kube.store, {"genomes": 2}, speed=20.0):
            ended = [(await on.until_finished(job_id))["state"] for job_id in (JOB, OTHER)]

        assert waiting == ["Kueue", "Kueue"]
        assert ended == ["Succeeded", "Succeeded"]
        assert on.told()[-1] == "succeeded"


async def until_queued(on: Stage, job_id: str) -> dict[str, Any]:
    """Wait until a job carries its queue's name."""

    def is_queued() -> bool:
        jobs = {item["metadata"]["name"]: item for item in on.world.kube.store.list(JOBS)}
        return "kueue.x-k8s.io/queue-name" in jobs[job_id.lower()]["metadata"]["labels"]

    await on.until(is_queued, "it is handed to Kueue")
    return await on.show(job_id)


async def test_fault_15_a_job_that_never_starts_times_out_and_says_what_it_waited_for():
    async with stage(TIMEOUT_SECONDS="1") as on:
        quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
        on.world.kube.store.create(RESOURCEQUOTAS, "intervene-dev", quota)
        await on.launch()

        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "TimedOut"
        assert "exceeded quota" in shown["verdict"]["message"]
        assert on.told() == ["failed"]
        assert on.leftovers() == []
