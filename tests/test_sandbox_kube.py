"""What only the stand-in cluster has: faults, recorded requests, roles by token, a movable clock.

What it shares with a real API server is in test_kube_conformance.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml
from kube_access import read_kubeconfig
from patience import PATIENCE

from pyvatti.sandbox.faults import FaultRules
from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.logs import LIMIT_BYTES, PodLogs
from pyvatti.sandbox.kube.resources import CONFIGMAPS, EVENTS, RESOURCES, SECRETS
from pyvatti.sandbox.kube.schema import FieldType, type_of
from pyvatti.sandbox.kube.store import Store

NAMESPACE = "intervene-dev"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
ROLES = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"


def configmap(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": {"key": "value" * 20}}


@asynccontextmanager
async def client(kube: KubeStandIn, token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {token or kube.token}", "User-Agent": "tester/1.0 (x)"}
    connector = aiohttp.TCPConnector(ssl=kube.ssl_context())
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(
        kube.url, headers=headers, connector=connector, timeout=timeout
    ) as session:
        yield session


@pytest.fixture
async def kube() -> AsyncIterator[KubeStandIn]:
    async with KubeStandIn(namespace=NAMESPACE, bookmark_seconds=0.2) as stand_in:
        yield stand_in


@pytest.fixture
async def session(kube: KubeStandIn) -> AsyncIterator[aiohttp.ClientSession]:
    async with client(kube) as opened:
        yield opened


# Faults


@pytest.mark.parametrize(
    ("method", "path", "asked", "hit"),
    [
        pytest.param("GET", "/a", ("GET", "/a"), True, id="same"),
        pytest.param("get", "/a", ("GET", "/a"), True, id="method in lower case"),
        pytest.param("*", "/a", ("PUT", "/a"), True, id="any method"),
        pytest.param("GET", "/a", ("PUT", "/a"), False, id="other method"),
        pytest.param("GET", "watch=1", ("GET", "/a?watch=1"), True, id="in the query"),
        pytest.param("GET", "^/b$", ("GET", "/a/b"), False, id="anchored"),
    ],
)
def test_fault_matches_method_and_path(
    method: str,
    path: str,
    asked: tuple[str, str],
    hit: bool,  # noqa: FBT001 - a row
):
    rules = FaultRules()
    rules.add(method, path, "reset")

    assert (rules.take(*asked) is not None) is hit


def test_fault_with_a_count_strikes_so_often_and_counts():
    rules = FaultRules()
    rule = rules.add("GET", "/", "reset", count=2)

    taken = [rules.take("GET", "/") for _ in range(4)]

    assert taken == [rule, rule, None, None]
    assert rule.hits == 2


async def test_status_fault_answers_without_handling(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add(
        "POST", "configmaps", "status", count=1, status=429, headers={"Retry-After": "7"}
    )

    async with session.post(MAPS, json=configmap("a")) as first:
        assert (first.status, first.headers["Retry-After"]) == (429, "7")
    async with session.post(MAPS, json=configmap("a")) as second:
        assert second.status == 201


async def test_html_fault_answers_a_proxys_page(kube: KubeStandIn, session: aiohttp.ClientSession):
    kube.faults.add("GET", "configmaps", "html")

    async with session.get(MAPS) as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")
        assert (await answer.text()).startswith("<html>")


async def test_hang_fault_is_silent_until_the_client_gives_up(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("GET", "configmaps", "hang")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), session.get(MAPS):
            pass


async def test_reset_fault_cuts_before_the_request_is_handled(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("POST", "configmaps", "reset", count=1)

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.post(MAPS, json=configmap("a"))

    assert kube.store.find(CONFIGMAPS, NAMESPACE, "a") is None


async def test_after_fault_cuts_when_the_request_was_handled(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("POST", "configmaps", "after", count=1)

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.post(MAPS, json=configmap("a"))

    assert kube.store.find(CONFIGMAPS, NAMESPACE, "a") is not None


async def test_reset_body_fault_cuts_in_the_middle_of_the_answer(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("GET", "configmaps", "reset_body", count=1)

    async with session.get(MAPS) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_reset_body_fault_cuts_a_stream_after_its_seconds(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("GET", "watch=1", "reset_body", seconds=0.2)

    with pytest.raises(aiohttp.ClientError):
        async with session.get(MAPS, params={"watch": "1"}) as answer:
            await answer.read()


async def test_truncate_fault_sends_half_of_the_json_well_framed(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.faults.add("GET", "configmaps", "truncate", count=1)

    async with session.get(MAPS) as answer:
        half = await answer.read()
    async with session.get(MAPS) as answer:
        whole = await answer.read()

    assert half == whole[: len(whole) // 2]


async def test_slow_fault_answers_late_and_well(kube: KubeStandIn, session: aiohttp.ClientSession):
    kube.faults.add("GET", "configmaps", "slow", seconds=0.3)
    loop = asyncio.get_running_loop()
    start = loop.time()

    async with session.get(MAPS) as answer:
        assert answer.status == 200

    assert loop.time() - start >= 0.3


async def test_cleared_faults_are_gone(kube: KubeStandIn, session: aiohttp.ClientSession):
    kube.faults.add("*", "", "status", status=500)
    kube.faults.clear()

    async with session.get(MAPS) as answer:
        assert answer.status == 200


# Watches


async def test_injected_bytes_and_a_cut_reach_the_watcher(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    async with session.get(MAPS, params={"watch": "1"}) as answer:
        await answer.content.readline()  # what exists
        (stream,) = kube.streams
        await stream.inject(b'{"type":')
        assert await answer.content.readexactly(8) == b'{"type":'
        stream.cut()
        with pytest.raises(aiohttp.ClientError):
            await answer.content.readline()


async def test_bookmarks_come_at_the_given_interval(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    params = {"watch": "1", "allowWatchBookmarks": "true", "labelSelector": "none"}

    async with session.get(MAPS, params=params) as answer:
        events = [orjson.loads(await answer.content.readline()) for _ in range(2)]

    assert [item["type"] for item in events] == ["BOOKMARK", "BOOKMARK"]
    assert events[0]["object"]["metadata"]["resourceVersion"] == str(kube.store.resource_version)


async def test_page_after_a_compaction_is_gone_with_a_token_for_the_rest(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    for name in ("a", "b", "c"):
        kube.store.create(CONFIGMAPS, NAMESPACE, configmap(name))
    async with session.get(MAPS, params={"limit": "1"}) as answer:
        token = (await answer.json())["metadata"]["continue"]
    kube.store.create(CONFIGMAPS, NAMESPACE, configmap("d"))
    kube.store.compact()

    async with session.get(MAPS, params={"limit": "1", "continue": token}) as answer:
        status = await answer.json()
    async with session.get(MAPS, params={"continue": status["metadata"]["continue"]}) as answer:
        rest = await answer.json()

    assert (status["code"], status["reason"]) == (410, "Expired")
    assert [item["metadata"]["name"] for item in rest["items"]][-1] == "kube-root-ca.crt"


async def test_list_at_an_older_version_shows_what_was_then(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.store.create(CONFIGMAPS, NAMESPACE, configmap("a"))
    before = str(kube.store.resource_version)
    kube.store.mutate(CONFIGMAPS, NAMESPACE, "a", lambda body: body["data"].update(key="new"))
    kube.store.create(CONFIGMAPS, NAMESPACE, configmap("b"))
    kube.store.delete(CONFIGMAPS, NAMESPACE, "kube-root-ca.crt")

    params = {"resourceVersion": before, "resourceVersionMatch": "Exact"}
    async with session.get(MAPS, params=params) as answer:
        items = (await answer.json())["items"]

    assert [item["metadata"]["name"] for item in items] == ["a", "kube-root-ca.crt"]
    assert items[0]["data"]["key"] == "value" * 20


# Callers


async def test_requests_are_recorded_with_who_did_what(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    async with session.get(f"{MAPS}/absent", params={"x": "y"}):
        pass

    record = kube.requests[-1]
    assert (record.method, record.verb, record.resource) == ("GET", "get", "configmaps")
    assert (record.name, record.user, record.status) == ("absent", "admin", 404)
    assert record.path == f"{MAPS}/absent?x=y"
    assert record.user_agent == "tester/1.0 (x)"


async def test_unknown_token_is_refused_and_nobody_sees_only_health(kube: KubeStandIn):
    async with client(kube, "wrong") as stranger, stranger.get("/version") as answer:
        assert answer.status == 401
    connector = aiohttp.TCPConnector(ssl=kube.ssl_context())
    async with aiohttp.ClientSession(kube.url, connector=connector) as nobody:
        async with nobody.get("/readyz") as answer:
            assert answer.status == 200
        async with nobody.get(MAPS) as answer:
            assert answer.status == 403


async def test_certificate_of_another_authority_is_not_trusted(kube: KubeStandIn):
    async with aiohttp.ClientSession(kube.url) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get("/version")


async def test_token_may_do_what_its_role_grants_and_no_more():
    async with KubeStandIn(namespace=NAMESPACE, tokens={"t": "worker"}, enforce_rbac=True) as kube:
        rule = {"apiGroups": [""], "resources": ["configmaps", "pods/log"], "verbs": ["get"]}
        role = {"metadata": {"name": "r"}, "rules": [rule]}
        binding = {
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "worker"}],
        }
        async with client(kube) as admin:
            for plural, body in (("roles", role), ("rolebindings", binding)):
                async with admin.post(f"{ROLES}/{plural}", json=body) as answer:
                    assert answer.status == 201
        async with client(kube, "t") as worker:
            async with worker.get(f"{MAPS}/kube-root-ca.crt") as answer:
                assert answer.status == 200
            async with worker.get(MAPS) as answer:
                refusal = await answer.json()

    assert refusal["message"] == (
        'configmaps is forbidden: User "worker" cannot list resource "configmaps" in API group ""'
        f' in the namespace "{NAMESPACE}"'
    )
    assert kube.used["worker"] == {("get", "configmaps")}


async def test_kubeconfig_names_everything_a_client_needs(kube: KubeStandIn, tmp_path: Path):
    path = tmp_path / "config"
    path.write_text(kube.kubeconfig(), encoding="utf-8")

    access = read_kubeconfig(path)

    assert yaml.safe_load(path.read_text())["contexts"][0]["context"]["namespace"] == NAMESPACE
    assert access.url == kube.url
    found = await asyncio.to_thread(access.call, "GET", f"/api/v1/namespaces/{NAMESPACE}")
    assert found["kind"] == "Namespace"


async def test_ages_of_a_table_grow_while_it_is_watched(
    kube: KubeStandIn, session: aiohttp.ClientSession
):
    kube.store.create(CONFIGMAPS, NAMESPACE, configmap("a", labels={"run": "a"}))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    query = {"watch": "true", "labelSelector": "run=a", "timeoutSeconds": "10"}
    async with session.get(MAPS, params=query, headers=accept) as answer:
        first = orjson.loads(await answer.content.readline())
        kube.store.offset = timedelta(hours=4)
        kube.store.mutate(CONFIGMAPS, NAMESPACE, "a", lambda body: body["data"].update(x="y"))
        second = orjson.loads(await answer.content.readline())

    assert [item["object"]["rows"][0]["cells"] for item in (first, second)] == [
        ["a", 1, "0s"],
        ["a", 2, "4h"],
    ]


# Store


def test_writes_of_a_subscriber_are_delivered_after_the_change_it_saw():
    store = Store("n")
    seen: list[str] = []

    def echo(type_: str, _resource: Any, new: dict[str, Any], _old: Any) -> None:
        if new["metadata"]["name"] == "a" and type_ == "ADDED":
            store.create(SECRETS, "n", {"metadata": {"name": "b"}})

    store.subscribe(echo)
    store.subscribe(lambda _type, _resource, new, _old: seen.append(new["metadata"]["name"]))
    store.create(SECRETS, "n", {"metadata": {"name": "a"}})

    assert seen == ["a", "b"]


def test_mutation_that_changes_nothing_writes_nothing():
    store = Store("n")
    made = store.create(SECRETS, "n", {"metadata": {"name": "a"}})
    number = store.resource_version

    same = store.mutate(SECRETS, "n", "a", lambda body: body["metadata"].update(name="a"))

    assert same is not None
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert store.resource_version == number
    assert store.mutate(SECRETS, "n", "absent", lambda _body: None) is None


def test_clock_of_the_cluster_can_be_moved():
    store = Store("n")
    store.offset = timedelta(days=2)

    made = store.create(SECRETS, "n", {"metadata": {"name": "a"}})

    assert made["metadata"]["creationTimestamp"] == store.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def test_log_of_changes_is_bounded():
    store = Store("n", log_capacity=10)
    for number in range(30):
        store.create(SECRETS, "n", {"metadata": {"name": f"s{number}"}})

    assert store.log.compacted > 0
    assert len(store.log.after(SECRETS, 0)) <= 10
    with pytest.raises(ApiError) as caught:
        store.versions(SECRETS, "n", at=1)
    assert caught.value.code == 410


async def test_followed_log_ends_with_its_container_and_forgets_old_lines():
    logs = PodLogs()
    line = "x" * 999
    for _ in range(LIMIT_BYTES // 1000 + 100):
        logs.append("uid", "main", line)

    async def read() -> int:
        return sum([len(chunk) async for chunk in logs.stream("uid", "main", follow=True)])

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        task = group.create_task(read())
        await asyncio.sleep(0)
        logs.append("uid", "main", line)
        logs.end("uid", "main")

    assert LIMIT_BYTES - 1000 <= task.result() <= LIMIT_BYTES + 2000


# Schema


def test_field_table_has_the_fields_of_the_published_schema():
    validate = pytest.importorskip("kubernetes_validate")
    folder = Path(validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local"
    published = orjson.loads((folder / "_definitions.json").read_bytes())["$defs"]
    roots = {(item.kind, item.group): type_of(item) for item in RESOURCES}
    seen: dict[str, set[str]] = {}

    def compare(kind: FieldType, name: str) -> None:
        if name in seen:
            return
        properties = published[name].get("properties", {})
        seen[name] = kind.fields.keys() ^ properties.keys()
        for label, child in kind.fields.items():
            inner = child if child.form == "object" else child.item
            target = _reference(properties.get(label, {}))
            if inner is not None and inner.form == "object" and target:
                compare(inner, target)

    for (kind, group), root in roots.items():
        short = {"": "core", "rbac.authorization.k8s.io": "rbac"}.get(group, group.split(".")[0])
        compare(root, f"io.k8s.api.{short}.v1.{kind}")

    assert {name: fields for name, fields in seen.items() if fields} == {}
    assert len(seen) > 100
    assert type_of(EVENTS).fields["involvedObject"].form == "object"


def _reference(schema: dict[str, Any]) -> str:
    inner = schema.get("items") or schema.get("additionalProperties") or schema
    reference: str = inner.get("$ref", "") if isinstance(inner, dict) else ""
    return reference.rpartition("/")[2]
