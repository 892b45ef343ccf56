"""One job by the API: what is shown, what it waits for, its cancellation, its logs."""

import asyncio

import httpx
import pytest
from api_calls import PATIENCE, problem_of
from patience import stopwatch
from stage import JOB, Stage, stage

from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.kube.resources import PODS, RESOURCEQUOTAS

BASE = JOB.lower()
OTHER = "INTP00000000514"
QUICK = Plan(transfer_seconds=0.2, start_seconds=0.2, run_seconds=0.2)
LASTING = Plan(transfer_seconds=4, run_seconds=2400)  # at speed 20: 0.2 s and two minutes
TRANSFERRING = Plan(transfer_seconds=2400)


@pytest.mark.parametrize("path", ["/jobs?state=Failed", f"/jobs/{JOB}"])
async def test_a_question_is_refused_in_time_while_the_api_server_is_silent(path: str):
    async with stage() as on:
        on.world.kube.faults.add("GET", "/configmaps", "hang")
        async with stopwatch() as seconds:
            answer = await on.hasty.get(path)
            assert seconds() < 5

        problem_of(answer, 503)
        on.world.kube.faults.clear()


async def test_a_job_is_shown_with_everything_about_it():
    async with stage("match_rate_too_low") as on:
        await on.launch()
        await on.until_finished()

        shown = (await on.client.get(f"/jobs/{BASE}")).json()

        assert (shown["id"], shown["state"], shown["live"]) == (JOB, "Failed", False)
        assert shown["run_name"].startswith(f"intervene-dev-{BASE}-")
        assert shown["transitions"].keys() >= {"Requested", "Created", "Failed"}
        assert all(time.endswith("Z") for time in shown["transitions"].values())
        verdict = shown["verdict"]
        assert verdict["reason"] == "MatchRateError"
        assert verdict["message"]
        assert verdict["next_step"]
        assert verdict["evidence"]
        assert [item["event"] for item in shown["deliveries"]][-1] == "failed"
        removed = {item["resource"] for item in shown["removed"]}
        work = shown["run_name"].replace(BASE, f"{BASE}-work")
        assert {f"bucket/{work}", f"bucket/intervene-dev-{BASE}-results"} <= removed
        assert shown["waiting"] is None


async def test_a_job_says_that_it_waits_for_a_slot():
    async with stage("slow", MAX_CONCURRENT_JOBS="1") as on:
        await on.launch()
        await on.launch(OTHER)
        await on.until_state("Created", "Deployed")

        assert (await on.show(OTHER))["waiting"]["on"] == "slot"


async def test_a_job_says_that_it_waits_for_its_turn_with_the_buckets():
    async with stage("slow", BUCKET_INTERVAL="60") as on:
        await on.launch()
        await on.launch(OTHER)

        waiting = (await on.show(OTHER))["waiting"]

        assert waiting["on"] == "buckets"
        assert "turn" in waiting["message"]


async def until_waiting(on: Stage, *expected: str) -> dict[str, str]:
    """Wait until the job says that it waits for one of these."""
    waiting: dict[str, str] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            while waiting.get("on") not in expected:
                waiting = (await on.show())["waiting"] or {}
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never waits for {expected}, but {waiting}") from None
    return waiting


async def test_a_job_says_that_it_waits_for_its_transfer_then_for_its_run():
    async with stage(Plan(transfer_seconds=30, start_seconds=10, run_seconds=30)) as on:
        await on.launch()

        assert (await until_waiting(on, "transfer"))["since"]
        await on.until_state("Deployed", "Succeeded")


async def test_a_job_says_that_its_image_cannot_be_pulled():
    async with stage("image_cannot_be_pulled", IMAGE_GRACE="60") as on:
        await on.launch()

        waiting = await until_waiting(on, "image")

        assert "image" in waiting["message"].lower()


async def test_a_job_says_which_quota_holds_its_pod_back():
    async with stage("slow") as on:
        quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
        on.world.kube.store.create(RESOURCEQUOTAS, "intervene-dev", quota)
        await on.launch()
        await on.until_state("Created")

        waiting = await until_waiting(on, "quota", "pod")

        assert waiting["message"]


async def test_a_cancel_is_202_again_and_again_until_the_job_is_gone_and_after():
    async with stage(LASTING) as on:
        await on.launch()
        await on.until_state("Created", "Deployed")

        answers = [await on.client.delete(f"/jobs/{BASE}") for _ in range(3)]
        await on.until_finished()
        answers.append(await on.client.delete(f"/jobs/{JOB}"))

        assert [(item.status_code, item.json()) for item in answers] == [(202, {"id": JOB})] * 4
        assert on.told().count("failed") == 1
        assert (await on.show())["verdict"]["reason"] == "Cancelled"


async def test_a_finished_job_cannot_be_cancelled():
    async with stage(QUICK) as on:
        await on.launch()
        await on.until_finished()

        assert "finished" in problem_of(await on.client.delete(f"/jobs/{JOB}"), 409)
        assert on.told()[-1] == "succeeded"


async def log_of(on: Stage, container: str, *, follow: bool = False) -> httpx.Response:
    """Ask for a log once it exists."""
    query = {"container": container, "follow": follow}
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await on.client.get(f"/jobs/{JOB}/log", params=query)
            if answer.status_code != 404:
                return answer
            await asyncio.sleep(0.02)


async def test_the_logs_of_both_containers_can_be_read():
    async with stage(LASTING) as on:
        await on.launch()

        transfer = await log_of(on, "transfer", follow=True)
        calculation = await log_of(on, "calculation")

        assert transfer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "transferred and decrypted" in transfer.text
        assert "N E X T F L O W" in calculation.text
        assert "transferred and decrypted" not in calculation.text


async def test_a_log_is_streamed_while_its_container_lives():
    async with stage(TRANSFERRING) as on:
        await on.launch()
        await log_of(on, "transfer")
        pod = on.world.kube.store.list(PODS, "intervene-dev")[0]
        query = {"container": "transfer"}
        async with on.client.stream("GET", f"/jobs/{JOB}/log", params=query) as answer:
            lines = answer.aiter_lines()
            async with asyncio.timeout(PATIENCE):
                assert "N E X T F L O W" in await anext(lines)
                said = "said of user%40example.org just now"
                on.world.kube.logs.append(pod["metadata"]["uid"], "transfer", said)
                while await anext(lines) != "said of (redacted) just now":
                    pass


async def test_the_log_of_a_container_that_has_not_begun_is_404():
    async with stage(TRANSFERRING) as on:
        await on.launch()
        await log_of(on, "transfer")

        assert "no log" in problem_of(await on.client.get(f"/jobs/{JOB}/log"), 404)


async def test_the_log_of_a_job_without_pod_is_404():
    async with stage(BUCKET_INTERVAL="60") as on:
        await on.launch()
        await on.launch(OTHER)

        assert "no pod" in problem_of(await on.client.get(f"/jobs/{OTHER}/log"), 404)


async def test_a_caller_has_a_share_of_those_that_only_read_what_there_is_too():
    query = {"container": "transfer", "follow": "false"}
    async with stage(TRANSFERRING) as on:
        await on.launch()
        await log_of(on, "transfer")
        pod = on.world.kube.store.list(PODS, "intervene-dev")[0]
        line = "x " * 8_000_000  # more than the sockets hold
        on.world.kube.logs.append(pod["metadata"]["uid"], "transfer", line)
        async with httpx.AsyncClient(base_url=on.url, timeout=PATIENCE) as reader:
            for number in range(6):
                request = reader.build_request("GET", f"/jobs/{JOB}/log", params=query)
                answer = await reader.send(request, stream=True)  # and is not read
                assert answer.status_code == (200 if number < 5 else 429)


async def test_a_caller_has_a_share_of_the_readers_and_those_that_leave_free_their_places():
    query = {"container": "transfer"}
    names = [f"token-of-caller-{number}" for number in range(5)]
    callers = [{"Authorization": f"Bearer {name}"} for name in names]
    async with stage(TRANSFERRING, API_AUTH="token", API_TOKENS=",".join(names)) as on:
        on.client.headers.update(callers[-1])
        await on.launch()
        await log_of(on, "transfer")
        async with httpx.AsyncClient(base_url=on.url) as reader:
            path = f"/jobs/{JOB}/log"

            async def read(caller: dict[str, str]) -> httpx.Response:
                request = reader.build_request("GET", path, params=query, headers=caller)
                return await reader.send(request, stream=True)

            streams = [await read(callers[0]) for _ in range(5)]
            greedy = await on.client.get(path, params=query, headers=callers[0])
            short = await on.client.get(
                path, params=query | {"follow": "false"}, headers=callers[0]
            )
            streams += [await read(caller) for caller in callers[1:4] for _ in range(5)]
            refused = await on.client.get(path, params=query)

            assert "a caller may follow 5 logs" in problem_of(greedy, 429)
            assert short.status_code == 200
            assert [answer.status_code for answer in streams] == [200] * 20
            assert "too many logs" in problem_of(refused, 503)
            assert (await on.client.get(f"/jobs/{JOB}")).status_code == 200

        async with asyncio.timeout(PATIENCE):
            while (await on.client.head(path, params=query)).status_code != 200:
                await asyncio.sleep(0.02)
            while (await on.client.head(path, params=query, headers=callers[0])).status_code != 200:
                await asyncio.sleep(0.02)
