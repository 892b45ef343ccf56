"""Resolves what a container sees: files of volumes, environment, expanded arguments.

Nothing is run. Sources are read from the store at the moment of the call.
"""

import base64
import re
from collections.abc import Mapping
from typing import TypeAlias

from pyvatti.sandbox.kube.kubelet_runtime import ContainerSpec
from pyvatti.sandbox.kube.resources import CONFIGMAPS, SECRETS, Resource
from pyvatti.sandbox.kube.store import Body, Store

Files: TypeAlias = dict[str, bytes]
Volumes: TypeAlias = dict[str, Files]

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][\w.-]*)\)")
_QUOTED_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class MountFailed(Exception):
    """A volume cannot be set up; the text is FailedMount's."""


class ConfigFailed(Exception):
    """A container's configuration cannot be made; the text is CreateContainerConfigError's."""


def mount(store: Store, pod: Body) -> Volumes:
    """Give the files of every volume of a pod, by volume name. Raises MountFailed."""
    return {
        volume["name"]: _mount_one(store, pod, volume) for volume in pod["spec"].get("volumes", [])
    }


def container_spec(
    store: Store, pod: Body, container: Body, volumes: Volumes, *, init: bool
) -> ContainerSpec:
    """Resolve one container. Raises ConfigFailed."""
    env = _environment(store, pod, container)
    return ContainerSpec(
        name=container["name"],
        image=container["image"],
        command=[_expand(item, env) for item in container.get("command", [])],
        args=[_expand(item, env) for item in container.get("args", [])],
        env=env,
        files=_files(container, volumes),
        init=init,
    )


def keep_written(container: Body, pod: Body, volumes: Volumes, files: Files) -> None:
    """Carry what a container wrote below an emptyDir back to the volume."""
    kinds = {item["name"]: item for item in pod["spec"].get("volumes", [])}
    for item in container.get("volumeMounts", []):
        if "emptyDir" not in kinds.get(item["name"], {}) or item.get("subPath"):
            continue
        prefix = item["mountPath"].rstrip("/") + "/"
        kept = {
            path[len(prefix) :]: data for path, data in files.items() if path.startswith(prefix)
        }
        volumes[item["name"]].clear()
        volumes[item["name"]].update(kept)


def _mount_one(store: Store, pod: Body, volume: Body) -> Files:
    namespace = pod["metadata"]["namespace"]
    try:
        if "secret" in volume:
            return _keyed(
                store, SECRETS, namespace, volume["secret"]["secretName"], volume["secret"]
            )
        if "configMap" in volume:
            source = volume["configMap"]
            return _keyed(store, CONFIGMAPS, namespace, source["name"], source)
        if "downwardAPI" in volume:
            return _downward(pod, volume["downwardAPI"])
        return _projected(store, pod, volume.get("projected", {}))
    except LookupError as error:
        raise MountFailed(
            f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error.args[0]}'
        ) from error


def _projected(store: Store, pod: Body, source: Body) -> Files:
    namespace = pod["metadata"]["namespace"]
    files: Files = {}
    for item in source.get("sources", []):
        if "secret" in item:
            files |= _keyed(store, SECRETS, namespace, item["secret"]["name"], item["secret"])
        elif "configMap" in item:
            name = item["configMap"]["name"]
            files |= _keyed(store, CONFIGMAPS, namespace, name, item["configMap"])
        elif "downwardAPI" in item:
            files |= _downward(pod, item["downwardAPI"])
        elif "serviceAccountToken" in item:
            files[item["serviceAccountToken"].get("path", "token")] = b"stand-in-token"
    return files


def _keyed(store: Store, resource: Resource, namespace: str, name: str, source: Body) -> Files:
    body = store.find(resource, namespace, name)
    optional = source.get("optional", False)
    if body is None:
        if optional:
            return {}
        raise LookupError(f'{resource.singular} "{name}" not found')
    content = _content(resource, body)
    items = source.get("items")
    if not items:
        return content
    missing = [item["key"] for item in items if item["key"] not in content]
    if missing and not optional:
        raise LookupError(f"references non-existent {resource.singular} key: {missing[0]}")
    return {item["path"]: content[item["key"]] for item in items if item["key"] in content}


def _content(resource: Resource, body: Body) -> Files:
    data: Mapping[str, str] = body.get("data") or {}
    if resource is SECRETS:
        return {key: base64.b64decode(text) for key, text in data.items()}
    binary: Mapping[str, str] = body.get("binaryData") or {}
    files = {key: text.encode() for key, text in data.items()}
    return files | {key: base64.b64decode(text) for key, text in binary.items()}


def _downward(pod: Body, source: Body) -> Files:
    return {
        item["path"]: _field(pod, item.get("fieldRef", {}).get("fieldPath", "")).encode()
        for item in source.get("items", [])
    }


def _files(container: Body, volumes: Volumes) -> Files:
    files: Files = {}
    for item in container.get("volumeMounts", []):
        content = volumes.get(item["name"], {})
        path = item["mountPath"].rstrip("/")
        if part := item.get("subPath", "").rstrip("/"):
            files |= {path: content[part]} if part in content else {}
            content = {
                name[len(part) + 1 :]: data
                for name, data in content.items()
                if name.startswith(part + "/")
            }
        files |= {f"{path}/{name}": data for name, data in content.items()}
    return files


def _environment(store: Store, pod: Body, container: Body) -> dict[str, str]:
    env: dict[str, str] = {"HOSTNAME": pod["metadata"]["name"]}
    try:
        for source in container.get("envFrom", []):
            env |= _environment_from(store, pod, source)
        for item in container.get("env", []):
            value = _value(store, pod, item, env)
            if value is not None:
                env[item["name"]] = value
    except LookupError as error:
        raise ConfigFailed(str(error.args[0])) from error
    return env


def _environment_from(store: Store, pod: Body, source: Body) -> dict[str, str]:
    resource, ref = (
        (SECRETS, source["secretRef"])
        if "secretRef" in source
        else (CONFIGMAPS, source["configMapRef"])
    )
    files = _keyed(store, resource, pod["metadata"]["namespace"], ref["name"], ref)
    prefix = source.get("prefix", "")
    return {prefix + key: data.decode(errors="replace") for key, data in files.items()}


def _value(store: Store, pod: Body, item: Body, env: Mapping[str, str]) -> str | None:
    source = item.get("valueFrom")
    if not source:
        return _expand(item.get("value", ""), env)
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for name, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIGMAPS)):
        if name in source:
            return _key_value(store, resource, pod, source[name])
    return ""


def _key_value(store: Store, resource: Resource, pod: Body, ref: Body) -> str | None:
    namespace = pod["metadata"]["namespace"]
    body = store.find(resource, namespace, ref["name"])
    data = None if body is None else _content(resource, body).get(ref["key"])
    if data is not None:
        return data.decode(errors="replace")
    if ref.get("optional"):
        return None
    if body is None:
        raise LookupError(f'{resource.singular} "{ref["name"]}" not found')
    raise LookupError(
        f"couldn't find key {ref['key']} in {resource.kind} {namespace}/{ref['name']}"
    )


def _field(pod: Body, path: str) -> str:
    if quoted := _QUOTED_KEY.fullmatch(path):
        return str(pod["metadata"].get(quoted[1], {}).get(quoted[2], ""))
    found: object = pod
    for part in path.split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    return found if isinstance(found, str) else ""


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; unknown names stay and `$$` is `$`, as in the container API."""
    return _REFERENCE.sub(
        lambda match: "$" if match[0] == "$$" else env.get(match[1], match[0]), text
    )
