"""The chart's Role is exactly what the service uses: everything it does is granted, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chart_tools import granted, merged, rendered_rules, scenario
from patience import PATIENCE
from stage import FAST, JOB, Stage, service_on, staged

from pyvatti.lifecycle.permissions import NEEDED
from pyvatti.sandbox.driver_plans import PLANS
from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.resources import JOBS, PODS, ROLEBINDINGS, ROLES
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

NAMESPACE = "intervene-dev"
USER = f"system:serviceaccount:{NAMESPACE}:hattivatti"
TOKEN = "the-service-account-token"
Rules = list[dict[str, list[str]]]


def guarded_world(rules: Rules, plan: str = "success") -> World:
    """Make a world whose cluster knows the service by its own user, under a Role of these rules."""
    world = World(plans=lambda _pod: PLANS[plan], speed=20.0, rate_limit=False)
    world.kube = KubeStandIn(tokens={TOKEN: USER}, enforce_rbac=True, speed=20.0)
    world.service_token = TOKEN
    meta = {"metadata": {"name": "hattivatti"}}
    account = {"kind": "ServiceAccount", "name": "hattivatti", "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hattivatti"}
    world.kube.store.create(ROLES, NAMESPACE, {**meta, "rules": rules})
    world.kube.store.create(
        ROLEBINDINGS, NAMESPACE, {**meta, "roleRef": role, "subjects": [account]}
    )
    return world


@asynccontextmanager
async def guarded_stage(
    rules: Rules, plan: str = "success", **changes: str
) -> AsyncIterator[Stage]:
    """Run the service under a Role of these rules, until it is ready."""
    async with staged(FAST | changes, guarded_world(rules, plan)) as on:
        yield on


async def the_stories(rules: Rules) -> tuple[set[tuple[str, str]], list[int]]:
    """Run stories that reach every corner; give what was used and the statuses of refusals."""
    used: set[tuple[str, str]] = set()
    refused: list[int] = []
    for plan in ("success", "transfer_fails", "seqera_silent"):
        async with guarded_stage(
            rules, plan, RECORD_RETENTION_SECONDS="1", SWEEP_INTERVAL="0.5"
        ) as on:
            await on.launch()
            await on.client.post("/launch", params={"dry_run": "true"}, json={})
            await on.until_finished()
            await on.client.get("/jobs")
            record = f"{JOB.lower()}-record"
            await on.until(lambda: record not in on.world.objects("ConfigMap"), "record expires")  # noqa: B023 - awaited within the loop
            used |= on.world.kube.used.get(USER, set())
            refused += [item.status for item in on.world.kube.requests if item.status == 403]
    async with guarded_stage(rules, "slow", TIMEOUT_SECONDS="1") as on:
        on.world.backend.known = set()
        await on.launch()
        await on.until(lambda: bool(on.world.objects("Pod")), "the pod is made")
        await on.until_state("Created")
        await on.until(lambda: logs_are_there(on), "the transfer runs")
        await on.client.get(f"/jobs/{JOB}/log", params={"container": "transfer", "follow": "false"})
        on.world.kube.store.delete(JOBS, NAMESPACE, JOB.lower(), propagation="Orphan")
        await on.until_finished()
        await on.client.post(f"/jobs/{JOB}/redeliver")
        on.world.backend.known = None
        await on.client.post(f"/jobs/{JOB}/redeliver")
        used |= on.world.kube.used.get(USER, set())
        refused += [item.status for item in on.world.kube.requests if item.status == 403]
    async with guarded_stage(rules, "slow", TIMEOUT_SECONDS="1") as on:
        await on.launch()
        await on.until_state("Created")
        suspend(on, suspended=True)  # as Kueue does: another attempt has a run name of its own
        await on.until(lambda: "Evicted" in on.events(), "its slot is taken back")
        suspend(on, suspended=False)
        await on.until_finished()  # a time-out reads the Events
        used |= on.world.kube.used.get(USER, set())
    return used, refused


def suspend(on: Stage, *, suspended: bool) -> None:
    store = on.world.kube.store
    store.mutate(JOBS, NAMESPACE, JOB.lower(), lambda job: job["spec"].update(suspend=suspended))


def logs_are_there(on: Stage) -> bool:
    pods = on.world.kube.store.list(PODS, NAMESPACE)
    statuses = [item for pod in pods for item in pod["status"].get("initContainerStatuses", [])]
    return any("running" in item["state"] for item in statuses)


async def test_the_role_grants_what_the_stories_use_and_nothing_else():
    rules = rendered_rules()

    used, refused = await the_stories(rules)

    asked = {(verb, name) for verb, name in used if "selfsubject" not in name}
    allowed = {
        (verb, f"{resource}.{group}" if group else resource)
        for verb, group, resource in granted(rules)
    }
    assert refused == []
    assert asked - allowed == set()
    assert allowed - asked == set()


def test_the_self_check_asks_for_what_the_role_grants():
    needed = {
        (verb, kind.group, f"{kind.plural}/{sub}" if sub else kind.plural)
        for kind, sub, verbs in NEEDED
        for verb in verbs
    }

    assert needed == set(granted(rendered_rules()))


def test_only_with_a_queue_the_words_of_kueue_may_be_read():
    values = merged(scenario("default"), {"config": {"kueueQueue": "genomes"}})

    more = granted(rendered_rules(values)) - granted(rendered_rules())

    assert more == {("list", "kueue.x-k8s.io", "workloads")}


async def test_a_missing_permission_is_named_in_readiness(tmp_path: Path):
    rules = [rule for rule in rendered_rules() if rule["resources"] != ["leases"]]

    async with guarded_world(rules) as world:
        environment = world.environment(tmp_path) | FAST
        settings = Settings.model_validate({key.lower(): environment[key] for key in environment})
        async with service_on(world, settings) as on:
            answer = await on.client.get("/readyz")
            async with asyncio.timeout(PATIENCE):
                while answer.status_code == 200 or "permission" not in answer.text:
                    await asyncio.sleep(0.01)
                    answer = await on.client.get("/readyz")

        assert answer.status_code == 503
        assert "create leases" in answer.json()["detail"]
