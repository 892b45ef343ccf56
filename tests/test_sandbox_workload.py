"""The stand-in's Job controller and kubelet: each failure's order of states."""

import asyncio
from typing import Any

import pytest
from patience import PATIENCE
from workload_bench import (
    FINALIZER,
    NAMESPACE,
    bench,
    conditions,
    container,
    job,
    message,
    state,
)

from pyvatti.sandbox.kube.jobcontroller import KueueStandIn
from pyvatti.sandbox.kube.kubelet import Fault, ShellRuntime
from pyvatti.sandbox.kube.kubelet_runtime import ContainerSpec
from pyvatti.sandbox.kube.resources import (
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCEQUOTAS,
    SECRETS,
    SERVICEACCOUNTS,
)

Body = dict[str, Any]
TRAP = "trap 'echo stopping; exit 143' TERM; sleep 9000 & wait"


def phase(pod: Body) -> str:
    return str(pod["status"]["phase"])


def dying(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"]


def kinds(body: Body) -> list[str]:
    return [kind for kind, value, _ in conditions(body) if value == "True"]


# --- a normal run


async def test_suspended_job_says_so_and_has_no_pod():
    async with bench() as world:
        world.create(job(suspend=True))

        await world.until(lambda: world.events("Suspended"))

        assert conditions(world.job()) == [("Suspended", "True", "JobSuspended")]
        assert world.pods() == []
        assert "startTime" not in world.job()["status"]


async def test_job_created_unsuspended_never_has_a_suspended_condition():
    async with bench() as world:
        world.create(job())

        await world.finished()

        assert all("Suspended" not in seen for seen in world.history(JOBS, kinds))


async def test_released_job_keeps_its_condition_for_a_moment_then_starts():
    async with bench() as world:
        world.create(job(suspend=True))
        await world.until(lambda: world.has("Suspended"))

        world.suspend(False)

        assert world.has("Suspended")
        await world.until(lambda: world.job()["status"].get("active") == 1)
        assert conditions(world.job()) == [("Suspended", "False", "JobResumed")]
        assert world.job()["status"]["startTime"]
        assert world.events("Resumed")


async def test_pod_is_owned_labelled_and_tracked():
    async with bench() as world:
        owner = world.create(job(TRAP))

        pod = await world.until(world.pod)

        uid = owner["metadata"]["uid"]
        assert pod["metadata"]["name"].startswith("intp1-")
        assert pod["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": "intp1",
                "uid": uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
        assert pod["metadata"]["labels"] == {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": "intp1",
            "controller-uid": uid,
            "job-name": "intp1",
        }


async def test_good_run_goes_through_every_state_in_order():
    async with bench() as world:
        world.create(job("echo done", init="echo fetched", suspend=True))
        await world.until(lambda: world.has("Suspended"))
        world.suspend(False)

        finished = await world.finished()

        assert world.history(JOBS, kinds) == [
            [],
            ["Suspended"],
            [],
            ["SuccessCriteriaMet"],
            ["SuccessCriteriaMet", "Complete"],
        ]
        assert finished["status"]["succeeded"] == 1
        assert "active" not in finished["status"]
        assert finished["status"]["completionTime"]
        assert world.history(PODS, lambda pod: (phase(pod), state(pod, "init"), state(pod))) == [
            ("Pending", "", ""),
            ("Pending", "waiting:PodInitializing", "waiting:PodInitializing"),
            ("Pending", "running", "waiting:PodInitializing"),
            ("Pending", "terminated:0:Completed", "waiting:PodInitializing"),
            ("Running", "terminated:0:Completed", "running"),
            ("Running", "terminated:0:Completed", "terminated:0:Completed"),
            ("Succeeded", "terminated:0:Completed", "terminated:0:Completed"),
        ]
        assert world.logs.text(world.pod()["metadata"]["uid"], "main") == "done\n"
        reasons = [item["reason"] for _, _, kind, item in world.changes if kind is EVENTS]
        assert reasons == [
            "Suspended",
            "Resumed",
            "SuccessfulCreate",
            "Scheduled",
            *("Pulled", "Created", "Started") * 2,
            "Completed",
        ]


async def test_decision_and_terminal_condition_come_about_three_seconds_after_the_exit():
    async with bench(10) as world:
        world.create(job())

        await world.finished()

        running = world.first(PODS, lambda pod: state(pod) == "running")
        ended = world.first(PODS, lambda pod: state(pod).startswith("terminated"))
        final = world.first(PODS, lambda pod: phase(pod) == "Succeeded")
        complete = world.first(JOBS, lambda body: "Complete" in kinds(body))
        assert ended - running >= 0.5
        assert final - ended >= 1.2
        assert complete - final >= 0.8


async def test_empty_folder_is_shared_by_init_and_main_container():
    mount = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
    async with bench() as world:
        body = job("cat /scratch/word > /dev/termination-log; exit 3", init="x", main=mount)
        spec = body["spec"]["template"]["spec"]
        spec["initContainers"] = [container("init", "echo hello > /scratch/word", **mount)]
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
        world.create(body)

        await world.finished()

        assert message(world.pod()) == "hello\n"


async def test_environment_comes_from_secrets_fields_and_literals():
    env = [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(TOKEN)-$(POD)-$(UNKNOWN)-$$(TOKEN)"},
        {
            "name": "NONE",
            "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}},
        },
    ]
    async with bench() as world:
        secret = {"metadata": {"name": "s"}, "data": {"token": "dG9r"}}
        world.store.create(SECRETS, NAMESPACE, secret)
        world.create(job("echo $BOTH $NONE; exit 1", main={"env": env}))

        await world.finished()

        name = world.pod()["metadata"]["name"]
        assert message(world.pod()) == f"tok-{name}-$(UNKNOWN)-$(TOKEN) \n"


# --- containers that end badly


async def test_main_failure_is_decided_before_it_is_final():
    async with bench() as world:
        world.create(job("echo broken; exit 3"))

        finished = await world.finished()

        assert world.history(JOBS, kinds) == [[], ["FailureTarget"], ["FailureTarget", "Failed"]]
        assert conditions(finished)[-1] == ("Failed", "True", "BackoffLimitExceeded")
        assert finished["status"]["failed"] == 1
        assert state(world.pod()) == "terminated:3:Error"
        assert message(world.pod()) == "broken\n"
        assert world.events("BackoffLimitExceeded")[0]["involvedObject"]["kind"] == "Job"


async def test_init_failure_leaves_main_waiting_for_ever():
    async with bench() as world:
        world.create(job("exit 0", init="echo no credentials; exit 78"))

        finished = await world.finished()

        assert world.history(PODS, lambda pod: (phase(pod), state(pod, "init"), state(pod)))[
            2:
        ] == [
            ("Pending", "running", "waiting:PodInitializing"),
            ("Pending", "terminated:78:Error", "waiting:PodInitializing"),
            ("Failed", "terminated:78:Error", "waiting:PodInitializing"),
        ]
        assert message(world.pod(), "init") == "no credentials\n"
        assert conditions(finished)[-1] == ("Failed", "True", "BackoffLimitExceeded")


@pytest.mark.parametrize(
    ("fault", "name", "end", "final"),
    [
        pytest.param(Fault.OOM_MAIN, "main", "terminated:137:OOMKilled", "Failed", id="main oom"),
        pytest.param(Fault.OOM_INIT, "init", "terminated:137:OOMKilled", "Failed", id="init oom"),
        pytest.param(
            Fault.OOM_CHILD, "main", "terminated:0:OOMKilled", "Complete", id="a child is killed"
        ),
        pytest.param(Fault.MAIN_EXIT, "main", "terminated:1:Error", "Failed", id="main exits 1"),
        pytest.param(Fault.INIT_EXIT, "init", "terminated:1:Error", "Failed", id="init exits 1"),
        pytest.param(
            Fault.COMMAND_NOT_FOUND, "main", "terminated:128:StartError", "Failed", id="no program"
        ),
    ],
)
async def test_struck_container_ends(fault: Fault, name: str, end: str, final: str):
    init = "sleep 900" if name == "init" else "exit 0"
    async with bench() as world:
        world.create(job("sleep 900", init=init, fault=fault))

        finished = await world.finished()

        assert state(world.pod(), name) == end
        assert kinds(finished)[-1] == final


async def test_program_that_is_not_in_the_image_never_starts():
    async with bench() as world:
        world.create(job(main={"command": ["nosuch", "x"]}))

        await world.finished()

        assert state(world.pod()) == "terminated:128:StartError"
        assert '"nosuch": executable file not found' in message(world.pod())
        started = world.pod()["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"]
        assert started == "1970-01-01T00:00:00Z"
        assert "running" not in world.history(PODS, state)
        assert world.events("Failed")


async def test_failure_policy_names_pod_code_and_rule():
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    async with bench() as world:
        world.create(job("exit 42", backoffLimit=3, podFailurePolicy={"rules": [rule]}))

        finished = await world.finished()

        name = world.pod()["metadata"]["name"]
        assert conditions(finished)[-1] == ("Failed", "True", "PodFailurePolicy")
        assert finished["status"]["conditions"][-1]["message"] == (
            f"Container main for pod demo/{name} failed with exit code 42"
            " matching FailJob rule at index 0"
        )


async def test_backoff_limit_counts_replacements():
    async with bench(100) as world:
        world.create(job("exit 1", backoffLimit=1))

        finished = await world.finished()

        assert finished["status"]["failed"] == 2
        assert len(world.pods()) == 2


# --- containers that do not start


@pytest.mark.parametrize(
    ("fault", "name", "reasons", "event"),
    [
        pytest.param(
            Fault.IMAGE_PULL_INIT,
            "init",
            ["waiting:ErrImagePull", "waiting:ImagePullBackOff", "waiting:ErrImagePull"],
            "BackOff",
            id="image of the init container cannot be pulled",
        ),
        pytest.param(
            Fault.IMAGE_PULL_MAIN,
            "main",
            ["waiting:ErrImagePull", "waiting:ImagePullBackOff"],
            "BackOff",
            id="image of the main container cannot be pulled",
        ),
        pytest.param(
            Fault.INVALID_IMAGE_NAME,
            "init",
            ["waiting:InvalidImageName"],
            "InspectFailed",
            id="image name is invalid",
        ),
        pytest.param(
            Fault.IMAGE_NEVER_PULL,
            "init",
            ["waiting:ErrImageNeverPull"],
            "ErrImageNeverPull",
            id="image may not be pulled",
        ),
        pytest.param(
            Fault.MISSING_SECRET_ENV,
            "main",
            ["waiting:CreateContainerConfigError"],
            "Failed",
            id="secret of the environment is missing",
        ),
    ],
)
async def test_container_that_cannot_start_waits_without_any_condition(
    fault: Fault, name: str, reasons: list[str], event: str
):
    async with bench(50) as world:
        world.create(job(init="exit 0", fault=fault))
        before = ["", "waiting:PodInitializing"]

        await world.until(
            lambda: world.history(PODS, lambda pod: state(pod, name))[2:][: len(reasons)] == reasons
        )

        assert world.history(PODS, lambda pod: state(pod, name))[:2] == before
        assert world.events(event)[0]["involvedObject"]["kind"] == "Pod"
        assert phase(world.pod()) == "Pending"
        assert conditions(world.job()) == []
        assert world.job()["status"]["active"] == 1


@pytest.mark.parametrize(
    ("main", "reason"),
    [
        pytest.param({"image": "registry.invalid/x:1"}, "ErrImagePull", id="host does not exist"),
        pytest.param({"image": "UPPER/Case:1"}, "InvalidImageName", id="name in upper case"),
        pytest.param({"imagePullPolicy": "Never"}, "ErrImageNeverPull", id="policy is Never"),
    ],
)
async def test_image_errors_come_from_the_spec_alone(main: Body, reason: str):
    async with bench() as world:
        world.create(job(main=main))

        await world.until(lambda: world.is_in(f"waiting:{reason}"))


@pytest.mark.parametrize(
    ("fault", "delay"),
    [
        pytest.param(Fault.IMAGE_PULL_MAIN, 11.6, id="image"),
        pytest.param(Fault.MISSING_SECRET_ENV, 13.0, id="configuration"),
    ],
)
async def test_events_of_the_main_container_lead_its_status_by_seconds(fault: Fault, delay: float):
    async with bench(50) as world:
        world.create(job(init="exit 0", fault=fault))

        await world.until(lambda: any("Err" in seen for seen in world.history(PODS, state)))

        told = world.first(EVENTS, lambda event: event["reason"] == "Failed")
        seen = world.first(PODS, lambda pod: "Err" in state(pod))
        assert seen - told >= delay


async def test_missing_secret_of_a_volume_is_one_growing_event_and_heals():
    volumes = [{"name": "keys", "secret": {"secretName": "keys"}}]
    mounts = {"volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
    async with bench() as world:
        world.create(job("cat /keys/key; exit 5", main=mounts, pod={"volumes": volumes}))
        await world.until(lambda: any(item["count"] > 2 for item in world.events("FailedMount")))
        assert len(world.events("FailedMount")) == 1
        assert world.is_in("waiting:ContainerCreating")

        secret = {"metadata": {"name": "keys"}, "stringData": {"key": "secret"}}
        world.store.create(SECRETS, NAMESPACE, secret)
        await world.finished()

        assert message(world.pod()) == "secret\n"


async def test_optional_secret_that_is_absent_is_an_empty_folder():
    volumes = [{"name": "keys", "secret": {"secretName": "keys", "optional": True}}]
    mounts = {"volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
    async with bench() as world:
        world.create(job("cat /keys/key || exit 78", main=mounts, pod={"volumes": volumes}))

        await world.finished()

        assert state(world.pod()) == "terminated:78:Error"
        assert world.events("FailedMount") == []


async def test_missing_secret_of_the_environment_heals():
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "later", "key": "t"}}}]
    async with bench(100) as world:
        world.create(job("echo $T; exit 5", main={"env": env}))
        await world.until(lambda: world.is_in("waiting:CreateContainerConfigError"))
        assert message(world.pod()) == 'secret "later" not found'

        secret = {"metadata": {"name": "later"}, "stringData": {"t": "word"}}
        world.store.create(SECRETS, NAMESPACE, secret)
        await world.finished()

        assert message(world.pod()) == "word\n"


async def test_unschedulable_pod_waits_until_a_node_fits():
    async with bench() as world:
        world.create(job(pod={"nodeSelector": {"disk": "fast"}}))

        await world.until(lambda: world.events("FailedScheduling"))

        assert ("PodScheduled", "False", "Unschedulable") in conditions(world.pod())
        assert world.events("FailedScheduling")[0].get("count") is None
        assert world.job()["status"]["active"] == 1
        world.store.mutate(
            NODES, "", "sandbox-node", lambda node: node["metadata"]["labels"].update(disk="fast")
        )
        assert kinds(await world.finished())[-1] == "Complete"


# --- no pod at all


async def test_quota_keeps_the_pod_away_and_each_retry_is_a_new_event():
    async with bench() as world:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        world.store.create(RESOURCEQUOTAS, NAMESPACE, quota)
        world.create(job())

        await world.until(lambda: len(world.events("FailedCreate")) == 3)

        status = world.job()["status"]
        assert status["startTime"]
        assert "active" not in status
        assert conditions(world.job()) == []
        assert all("exceeded quota" in item["message"] for item in world.events("FailedCreate"))
        world.store.delete(RESOURCEQUOTAS, NAMESPACE, "none")
        assert kinds(await world.finished())[-1] == "Complete"


async def test_pod_security_refuses_an_unrestricted_pod():
    async with bench() as world:
        world.store.mutate(
            NAMESPACES,
            "",
            NAMESPACE,
            lambda body: body["metadata"]["labels"].update(
                {"pod-security.kubernetes.io/enforce": "restricted"}
            ),
        )
        world.create(job())

        (event,) = await world.until(lambda: world.events("FailedCreate"))

        assert 'violates PodSecurity "restricted:latest"' in event["message"]
        assert "runAsNonRoot != true" in event["message"]
        assert world.pods() == []


async def test_missing_service_account_is_one_growing_event_and_heals():
    async with bench() as world:
        world.create(job(pod={"serviceAccountName": "nextflow"}))
        await world.until(lambda: any(item["count"] > 1 for item in world.events("FailedCreate")))
        assert len(world.events("FailedCreate")) == 1

        world.store.create(SERVICEACCOUNTS, NAMESPACE, {"metadata": {"name": "nextflow"}})

        assert kinds(await world.finished())[-1] == "Complete"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        pytest.param(Fault.QUOTA, "exceeded quota", id="quota"),
        pytest.param(Fault.POD_SECURITY, "violates PodSecurity", id="pod security"),
        pytest.param(Fault.SERVICE_ACCOUNT_MISSING, "service account", id="service account"),
    ],
)
async def test_refusal_can_be_asked_for_by_annotation(fault: Fault, text: str):
    async with bench() as world:
        world.create(job(fault=fault))

        (event,) = await world.until(lambda: world.events("FailedCreate"))

        assert text in event["message"]
        assert world.pods() == []


# --- deadlines


async def test_deadline_of_a_running_job_is_final_once_the_pod_is():
    async with bench() as world:
        world.create(job(TRAP, activeDeadlineSeconds=3))

        finished = await world.finished()

        assert conditions(finished) == [
            ("FailureTarget", "True", "DeadlineExceeded"),
            ("Failed", "True", "DeadlineExceeded"),
        ]
        last = world.last_pod()
        assert (phase(last), state(last), message(last)) == (
            "Failed", "terminated:143:Error", "stopping\n",
        )  # fmt: skip
        order = [
            (resource is JOBS and kinds(body)) or (resource is PODS and phase(body))
            for _, _, resource, body in world.changes
        ]
        assert order.index(["FailureTarget"]) < order.index("Failed")
        assert order.index("Failed") < order.index(["FailureTarget", "Failed"])
        assert [world.events(x)[0]["type"] for x in ("SuccessfulDelete", "Killing")] == [
            "Normal", "Normal",
        ]  # fmt: skip
        assert world.events("DeadlineExceeded")
        await world.until(lambda: not world.pods())


async def test_deadline_while_the_image_is_pulled_leaves_an_unknown_container():
    async with bench() as world:
        world.create(job(init="exit 0", fault=Fault.IMAGE_PULL_INIT, activeDeadlineSeconds=3))

        await world.finished()

        last = world.last_pod()
        assert state(last, "init") == "terminated:137:ContainerStatusUnknown"
        assert state(last) == "waiting:PodInitializing"
        assert phase(last) == "Failed"


async def test_deadline_strikes_a_job_that_never_got_a_pod():
    async with bench() as world:
        world.create(job(fault=Fault.QUOTA, activeDeadlineSeconds=2))

        finished = await world.finished()

        assert conditions(finished)[-1] == ("Failed", "True", "DeadlineExceeded")
        assert world.history(PODS, phase) == []


async def test_deadline_can_be_asked_for_by_annotation():
    async with bench() as world:
        world.create(job(TRAP, fault=Fault.DEADLINE))

        assert conditions(await world.finished())[-1][2] == "DeadlineExceeded"


# --- pods ended from outside


async def test_pod_deleted_by_hand_is_terminated_then_failed_then_gone():
    async with bench() as world:
        world.create(job(TRAP))
        pod = await world.running()

        world.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])
        finished = await world.finished()
        await world.until(lambda: not world.pods())

        seen = world.history(PODS, lambda body: (dying(body), phase(body), state(body)))
        assert seen[-4:] == [
            (True, "Running", "running"),
            (True, "Running", "terminated:143:Error"),
            (True, "Failed", "terminated:143:Error"),
            "gone",
        ]
        assert conditions(finished)[-1] == ("Failed", "True", "BackoffLimitExceeded")


@pytest.mark.parametrize(
    ("policy", "final"),
    [
        pytest.param("Failed", "Complete", id="judged by its end"),
        pytest.param("TerminatingOrFailed", "Failed", id="judged by its deletion"),
    ],
)
async def test_replacement_policy_judges_a_deleted_pod_that_ends_well(policy: str, final: str):
    script = "trap 'sleep 5; exit 0' TERM; sleep 9000 & wait"
    async with bench() as world:
        world.create(job(script, podReplacementPolicy=policy))
        pod = await world.running()

        world.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])

        assert kinds(await world.finished())[-1] == final


async def test_shell_without_trap_is_killed_after_the_grace():
    async with bench() as world:
        world.create(job("sleep 9000", grace=20))
        pod = await world.running()

        world.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])
        await world.finished()

        assert state(world.last_pod()) == "terminated:137:Error"
        told = world.first(PODS, dying)
        assert world.first(PODS, lambda body: phase(body) == "Failed") - told >= 20


async def test_second_deletion_shortens_the_grace():
    async with bench() as world:
        world.create(job("sleep 9000", grace=100_000))
        pod = await world.running()
        world.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])
        await world.until(lambda: world.events("Killing"))

        world.store.delete(PODS, NAMESPACE, pod["metadata"]["name"], grace_seconds=1)

        await world.finished()
        assert state(world.last_pod()) == "terminated:137:Error"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(Fault.EVICTION_API, "EvictionByEvictionAPI", id="eviction API"),
        pytest.param(Fault.TAINT_MANAGER, "DeletionByTaintManager", id="node tainted"),
        pytest.param(Fault.PREEMPTED_BY_SCHEDULER, "PreemptionByScheduler", id="preempted"),
    ],
)
async def test_disrupted_pod_says_by_whom(fault: Fault, reason: str):
    async with bench() as world:
        world.create(job(TRAP, fault=fault))

        finished = await world.finished()

        assert ("DisruptionTarget", "True", reason) in conditions(world.last_pod())
        assert state(world.last_pod()) == "terminated:143:Error"
        assert conditions(finished)[-1][2] == "BackoffLimitExceeded"


@pytest.mark.parametrize(
    ("fault", "reason", "end"),
    [
        pytest.param(Fault.EVICTED, "Evicted", "terminated:137:Error", id="memory pressure"),
        pytest.param(
            Fault.STORAGE_LIMIT, "Evicted", "terminated:137:Error", id="its own storage limit"
        ),
        pytest.param(Fault.NODE_SHUTDOWN, "Terminated", "terminated:143:Error", id="shutdown"),
        pytest.param(
            Fault.PREEMPTED_BY_KUBELET, "Preempting", "terminated:137:Error", id="preempted"
        ),
        pytest.param(Fault.OUT_OF_CPU, "OutOfcpu", "", id="no room on arrival"),
        pytest.param(
            Fault.UNEXPECTED_ADMISSION, "UnexpectedAdmissionError", "", id="refused on arrival"
        ),
        pytest.param(Fault.NODE_AFFINITY, "NodeAffinity", "", id="not the node it is bound to"),
    ],
)
async def test_pod_ended_by_its_node_keeps_the_reason(fault: Fault, reason: str, end: str):
    async with bench() as world:
        world.create(job(TRAP, fault=fault))

        await world.finished()

        pod = world.pod()
        assert (phase(pod), pod["status"]["reason"], state(pod)) == ("Failed", reason, end)
        assert pod["status"]["message"]


async def test_an_eviction_beyond_the_pods_own_limit_is_no_disruption():
    async with bench() as world:
        world.create(job(TRAP, fault=Fault.STORAGE_LIMIT))

        await world.finished()

        assert "DisruptionTarget" not in [item[0] for item in conditions(world.pod())]
        assert "exceeds the total limit of containers" in world.pod()["status"]["message"]


async def test_lost_node_is_noticed_late_and_its_pod_stays_until_the_node_is_removed():
    async with bench(400) as world:
        world.create(job(TRAP, fault=Fault.NODE_LOST))

        finished = await world.finished()

        seen = world.history(
            PODS, lambda body: (phase(body), ("Ready", "True", "") in conditions(body), dying(body))
        )
        assert [item for item in seen if item != "gone"][-5:] == [
            ("Pending", False, False),
            ("Running", True, False),
            ("Running", False, False),
            ("Running", False, True),
            ("Failed", False, True),
        ]
        reasons = world.history(
            PODS,
            lambda body: [item[2] for item in conditions(body) if item[0] == "DisruptionTarget"],
        )
        assert [item for item in reasons if item != "gone"][-2:] == [
            ["DeletionByTaintManager"],
            ["DeletionByPodGC"],
        ]
        assert conditions(finished)[-1][2] == "BackoffLimitExceeded"


async def test_silent_node_turns_ready_alone_to_false_and_nothing_else_ever_happens():
    async with bench(400) as world:
        world.create(job(TRAP, fault=Fault.NODE_SILENT))

        await world.running()
        await world.until(lambda: ("Ready", "False", "") in conditions(world.pod()))
        world.store.delete(PODS, NAMESPACE, world.pod()["metadata"]["name"])
        await asyncio.sleep(400 / world.speed)

        pod = world.pod()
        assert ("ContainersReady", "True", "") in conditions(pod)
        assert (phase(pod), dying(pod)) == ("Running", True)


async def test_running_pod_can_be_struck_by_a_test():
    async with bench() as world:
        world.create(job(TRAP))
        pod = await world.running()

        world.kubelet.strike(NAMESPACE, pod["metadata"]["name"], Fault.OOM_MAIN)

        await world.finished()
        assert state(world.pod()) == "terminated:137:OOMKilled"


# --- Jobs that are deleted, suspended or left alone


async def test_background_deletion_with_a_finalizer_lets_the_pod_run_and_decides_nothing():
    async with bench() as world:
        world.create(job("sleep 20; exit 1", finalizers=(FINALIZER,)))
        await world.running()

        world.store.delete(JOBS, NAMESPACE, "intp1", propagation="Background")
        await world.until(lambda: world.pod() and phase(world.pod()) == "Failed")
        world.suspend(True)
        await asyncio.sleep(3 / world.speed)

        assert conditions(world.job()) == []
        assert world.job()["metadata"]["finalizers"] == [FINALIZER]


async def test_foreground_deletion_stops_the_pod_and_leaves_our_finalizer():
    async with bench() as world:
        world.create(job(TRAP, finalizers=(FINALIZER,)))
        await world.running()

        world.store.delete(JOBS, NAMESPACE, "intp1", propagation="Foreground")

        await world.until(lambda: world.job()["metadata"]["finalizers"] == [FINALIZER])
        assert world.pods() == []
        assert state(world.last_pod()) == "terminated:143:Error"


async def test_orphaned_pod_runs_on_without_owner_and_tracking():
    async with bench() as world:
        world.create(job(TRAP))
        await world.running()

        world.store.delete(JOBS, NAMESPACE, "intp1", propagation="Orphan")
        await world.until(lambda: world.job() is None)

        pod = world.pod()
        assert "ownerReferences" not in pod["metadata"]
        assert "finalizers" not in pod["metadata"]
        assert state(pod) == "running"


async def test_pod_of_a_job_that_is_gone_is_not_held():
    async with bench() as world:
        world.create(job(TRAP))
        await world.running()

        world.store.delete(JOBS, NAMESPACE, "intp1", propagation="Background")

        await world.until(lambda: not world.pods())
        assert state(world.last_pod()) == "terminated:143:Error"


async def test_suspending_a_running_job_deletes_its_pod_and_counts_nothing():
    async with bench() as world:
        world.create(job(TRAP, init="exit 0"))
        first = await world.running()

        world.suspend(True)
        await world.until(lambda: world.has("Suspended") and not world.pods())

        status = world.job()["status"]
        assert "startTime" not in status
        assert "active" not in status
        assert "failed" not in status
        world.suspend(False)
        second = await world.running()
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert state(second, "init") == "terminated:0:Completed"


async def test_finished_job_is_removed_after_its_retention():
    async with bench() as world:
        world.create(job(ttlSecondsAfterFinished=10))
        await world.finished()

        await world.until(lambda: world.job() is None and not world.pods())

        done = world.first(JOBS, lambda body: "Complete" in kinds(body))
        gone = world.first(JOBS, dying)
        assert gone - done >= 10


async def test_job_of_another_controller_is_left_alone():
    async with bench() as world:
        world.create(job(name="other", managedBy="example.org/other"))
        world.create(job())

        await world.finished()

        assert world.job("other")["status"] == {}


async def test_kueue_admits_as_many_jobs_as_its_queue_has_room_for():
    labels = {"kueue.x-k8s.io/queue-name": "small"}
    async with bench() as world, KueueStandIn(world.store, {"small": 2}, speed=world.speed):
        for number in range(5):
            world.create(job("sleep 3", name=f"intp{number}", labels=labels, suspend=True))

        for number in range(5):
            await world.finished(f"intp{number}")

        active: set[str] = set()
        for _, _, resource, body in world.changes:
            if resource is JOBS:
                name = body["metadata"]["name"]
                unfinished = not {"Complete", "Failed"} & set(kinds(body))
                (active.add if unfinished and not body["spec"]["suspend"] else active.discard)(name)
                assert len(active) <= 2


async def test_job_controller_at_its_write_limit_serves_jobs_in_order():
    async with bench(qps=4) as world:
        for number in range(40):
            world.create(job(name=f"intp{number:02}", suspend=True))
        began = asyncio.get_running_loop().time()

        await world.until(lambda: world.has("Suspended", name="intp39"))

        # 40 writes at 4 x 40 a second, 6 of them as a burst
        assert asyncio.get_running_loop().time() - began >= 33 / (4 * world.speed)
        order = [
            body["metadata"]["name"]
            for _, change, resource, body in world.changes
            if resource is JOBS and change == "MODIFIED"
        ]
        assert order == sorted(order)


async def test_running_pods_cause_no_write_while_nothing_happens():
    async with bench() as world:
        for number in range(200):
            world.create(job("sleep 90000", name=f"intp{number}"))
        await world.until(
            lambda: (
                sum(state(pod) == "running" for pod in world.pods()) == 200
                and all(body["status"].get("ready") == 1 for body in world.store.list(JOBS))
            )
        )
        before = world.store.resource_version

        await asyncio.sleep(0.5)

        assert world.store.resource_version == before


# --- the tiny shell


@pytest.mark.parametrize(
    ("script", "code", "printed"),
    [
        pytest.param("exit 3", 3, [], id="exit"),
        pytest.param("echo a; echo b && exit 4", 4, ["a", "b"], id="sequence"),
        pytest.param("false && echo no; true || echo no; echo $?", 0, ["0"], id="short circuit"),
        pytest.param(
            "false\necho $?\nnope\necho $?", 0, ["1", "sh: nope: not found", "127"], id="status"
        ),
        pytest.param("A=x; for i in 1 2; do echo $A$i; done", 0, ["x1", "x2"], id="loop"),
        pytest.param("if [ -f /no ]; then exit 1; else echo none; fi", 0, ["none"], id="choice"),
        pytest.param(
            "echo word > /tmp/f; cat /tmp/f; echo out >&2", 0, ["word", "out"], id="files"
        ),
        pytest.param(
            "cat /no || exit 7",
            7,
            ["cat: can't open '/no': No such file or directory"],
            id="no file",
        ),
        pytest.param("echo 'a;b' \"c  d\"", 0, ["a;b c  d"], id="quotes"),
        pytest.param(
            "sleep 9000 & echo went on", 0, ["went on"], id="background ends with the shell"
        ),
        pytest.param("a | b", 2, ["sh: syntax error: unexpected '|'"], id="pipes are refused"),
    ],
)
async def test_shell_runs_small_scripts(script: str, code: int, printed: list[str]):
    container = ContainerSpec(name="c", image="busybox", command=["sh", "-c", script])
    lines: list[str] = []

    async with asyncio.timeout(PATIENCE):
        ended = await ShellRuntime(speed=100).run(container, {}, lines.append, asyncio.Event())

    assert (ended, lines) == (code, printed)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("trap 'exit 143' TERM; sleep 9000 & wait", 143, id="trap during wait"),
        pytest.param("trap 'exit 9' TERM; while :; do sleep 1; done", 9, id="trap between sleeps"),
        pytest.param("sleep 20; exit 5", 5, id="no trap: process 1 ignores TERM"),
    ],
)
async def test_shell_takes_term_as_process_1_does(script: str, code: int):
    container = ContainerSpec(name="c", image="busybox", command=["sh", "-c", script])
    stop = asyncio.Event()
    stop.set()

    async with asyncio.timeout(PATIENCE):
        assert await ShellRuntime(speed=100).run(container, {}, print, stop) == code
