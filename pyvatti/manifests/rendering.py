"""From a launch and the settings to the Kubernetes objects of one job.

No text is put together here: templates/ does that, each value through its serialiser.
"""

import contextlib
import copy
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import orjson
import yaml
from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError

from pyvatti import __version__, labels
from pyvatti.errors import ConfigurationError
from pyvatti.jobs import id_names, names_for
from pyvatti.launch import EXAMPLE, LaunchRequest
from pyvatti.manifests.contexts import (
    SAMPLE_CREDENTIALS,
    credentials,
    fill,
    marks,
    plain_names,
    plain_request,
    plain_settings,
)
from pyvatti.manifests.environment import TemplateEnvironment
from pyvatti.manifests.nextflow import may_publish_genotypes, plugins, version_of
from pyvatti.manifests.serialisers import Unwritable, to_json
from pyvatti.models import IdNames, Installation, Manifest, Names, State
from pyvatti.settings import PACKAGED_TEMPLATES, Settings

REDACTED = "(redacted)"
REQUEST = "request.json"
TOWER_TOKEN = "tower-token"  # noqa: S105 - the key's name, which job.yaml.j2 refers to
RUN_NAME_KEY = "run-name"  # so is this: the Job is made before its uid, and so its run, has a name
DRIVER_FILES = (
    "scm",
    "transfer.config",
    "transfer-params.json",
    "transfer-input.json",
    "transfer-key.json",
    "calculation.config",
    "calculation-params.json",
    "calculation-input.json",
)
PIPELINE_PARAMETERS = "calculation-params.json"
TRANSFER_FILES = ("application.properties", "application-crypt4gh-secret-manager.properties")

RENDERING_ERRORS = (
    *(TemplateError, ArithmeticError, LookupError, OSError, TypeError, ValueError),
    *(AttributeError, MemoryError, RuntimeError, ConfigurationError),
)

DEADLINE_MARGIN = 3600  # seconds the service has to act on its own limits first
# A name that Nextflow, Seqera and Kubernetes all take
RUN_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,62}")
JOB_NAME = re.compile(r"intp[0-9]{1,11}")
STRICT_PARSER = (26, 4)  # Nextflow; its scripts before these revisions need the old parser:
GLOBFLOW_CLEAN = (2, 0, 1)
PGSC_CALC_CLEAN = (3,)
NEWEST_KNOWN = (2, 2, 0)  # what a revision that is no version is taken for

# libyaml is ten times faster and reads the same
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def redact(manifest: Manifest) -> Manifest:
    """Give a copy in which every value of a Secret is replaced."""
    shown = copy.deepcopy(manifest)
    if shown.get("kind") == "Secret":
        for part in {"data", "stringData"} & shown.keys():
            shown[part] = dict.fromkeys(shown[part], REDACTED)
    return shown


NO_UID = "00000000-0000-0000-0000-000000000000"


class Renderer:
    """Renders what one job consists of. Raises ConfigurationError where a template is wrong."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plain_settings = plain_settings(settings)
        self._environment = TemplateEnvironment([settings.templates_dir, PACKAGED_TEMPLATES])

    def check(self) -> None:
        """Render a sample of everything. Raises ConfigurationError naming setting, file or line."""
        if not self._settings.templates_dir.is_dir():
            raise ConfigurationError(f"TEMPLATES_DIR: no folder {self._settings.templates_dir}")
        request = LaunchRequest.model_validate(EXAMPLE)
        names = names_for(request.job_id, self._settings.namespace, NO_UID)
        if not RUN_NAME.fullmatch(names.run_name):
            raise ConfigurationError("NAMESPACE: must not hold -- or end in -: it names the runs")
        whose = self.nowhere()
        self.job(request, whose)
        # With nothing private in them, so that a mistake is said in full
        self._driver_files(request, names, whose, is_private=False)
        self._transfer_files(SAMPLE_CREDENTIALS, is_private=False)
        self.everything(request, whose)
        self.record(names, whose, state=State.FAILED, data={"record.json": "{}"})

    def nowhere(self) -> Installation:
        """Give an installation in no Namespace, to render what is only looked at."""
        settings = self._settings
        return Installation(
            namespace=settings.namespace, namespace_uid=NO_UID, instance=settings.instance
        )

    def job(self, request: LaunchRequest, whose: Installation) -> Manifest:
        """Give the Job: suspended, with our finalizer, labelled Requested."""
        names = id_names(request.job_id, whose.namespace)
        limits = self._settings.timeout_seconds + self._settings.deployed_timeout_seconds
        common = self._labels(names, whose, labels.DRIVER)
        fingerprint = request.fingerprint()
        return self._job_manifest(
            names,
            fingerprint,
            job_labels={**common, labels.STATE: State.REQUESTED},
            pod_labels={**self._settings.driver_pod.labels, **common},
            annotations={labels.REQUEST_HASH: fingerprint},
            finalizer=labels.FINALIZER,
            deadline_seconds=int(limits.total_seconds()) + DEADLINE_MARGIN,
            resources=self._resources(),
            plugins=plugins(self._settings),
            kubernetes=version_of(self._settings.kubernetes_version) or (),
            transfer_parser_v1=self._needs_v1(self._settings.globflow_revision, GLOBFLOW_CLEAN),
            calculation_parser_v1=self._needs_v1(
                self._settings.pgsc_calc_revision, PGSC_CALC_CLEAN
            ),
        )

    def driver_secret(self, request: LaunchRequest, names: Names, whose: Installation) -> Manifest:
        """Give the Secret `{id}`: request.json, the driver's files, run name and Seqera token."""
        files = self._driver_files(request, names, whose, is_private=True)
        files[REQUEST] = to_json(request.canonical())
        files[TOWER_TOKEN] = self._settings.tower_token.get_secret_value()
        files[RUN_NAME_KEY] = names.run_name
        return self._secret("secret.yaml.j2", names, whose, labels.DRIVER, files)

    def transfer_secret(self, names: Names, whose: Installation) -> Manifest:
        """Give the Secret `{id}-transfer`: credentials of Globus and key handler, nothing else."""
        files = self._transfer_files(credentials(self._settings), is_private=True)
        return self._secret("transfer-secret.yaml.j2", names, whose, labels.TRANSFER, files)

    def everything(self, request: LaunchRequest, whose: Installation) -> list[Manifest]:
        """Render all that is applied for a launch: Job, driver Secret, transfer Secret, in order.

        The Secrets' owner is nobody: the API server gives the Job its uid.
        """
        names = names_for(request.job_id, whose.namespace, NO_UID)
        return [
            self.job(request, whose),
            self.driver_secret(request, names, whose),
            self.transfer_secret(names, whose),
        ]

    def record(
        self, names: Names, whose: Installation, *, state: State, data: Mapping[str, str]
    ) -> Manifest:
        """Give the ConfigMap that survives the job; `data` must hold nothing personal."""
        record_labels = {
            **self._labels(names, whose, labels.RECORD),
            labels.JOB_UID: names.uid,
            labels.STATE: state,
        }
        return self._manifest(
            "record.yaml.j2", names=names, record_labels=record_labels, data=dict(data)
        )

    def _labels(self, names: IdNames, whose: Installation, component: str) -> dict[str, str]:
        return {
            **labels.identity(whose, component),
            labels.NAME: labels.APPLICATION,
            labels.PART_OF: labels.PROJECT,
            labels.VERSION: __version__.replace("+", "_"),
            labels.JOB_ID: names.base,
        }

    def _resources(self) -> dict[str, dict[str, str]]:
        amounts = {
            "cpu": self._settings.driver_cpu,
            "memory": self._settings.driver_memory,
            "ephemeral-storage": self._settings.driver_storage,
        }
        return {"requests": amounts, "limits": amounts}

    def _needs_v1(self, revision: str, clean_from: tuple[int, ...]) -> bool:
        nextflow, pipeline = version_of(self._settings.nextflow), version_of(revision)
        old_nextflow = nextflow is not None and nextflow < STRICT_PARSER
        return not old_nextflow and (pipeline is None or pipeline < clean_from)

    def _secret(
        self,
        template: str,
        names: Names,
        whose: Installation,
        component: str,
        files: dict[str, str],
    ) -> Manifest:
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": names.base,
            "uid": names.uid,
            "controller": True,
        }
        secret_labels = {**self._labels(names, whose, component), labels.JOB_UID: names.uid}
        manifest = self._manifest(
            template, names=names, secret_labels=secret_labels, owner=owner, files=marks(files)
        )
        return fill(template, manifest, files)

    def _driver_files(
        self, request: LaunchRequest, names: Names, whose: Installation, *, is_private: bool
    ) -> dict[str, str]:
        context = {
            "request": plain_request(request),
            "names": plain_names(names),
            "pgsc_calc": version_of(self._settings.pgsc_calc_revision) or NEWEST_KNOWN,
            "may_publish_genotypes": may_publish_genotypes(self._settings.pgsc_calc_revision),
            "resource_labels": labels.of_bucket(whose, names.base, names.uid),
        }
        made = {name: self._file(name, context, is_private=is_private) for name in DRIVER_FILES}
        if context["may_publish_genotypes"] and not _keeps_genotypes(made[PIPELINE_PARAMETERS]):
            raise ConfigurationError(
                f"{PIPELINE_PARAMETERS}.j2: must set publish_cache to false for this"
                " PGSC_CALC_REVISION: it would publish the genotypes with the results"
            )
        return made

    def _transfer_files(self, secrets: Mapping[str, str], *, is_private: bool) -> dict[str, str]:
        context = {"credentials": secrets}
        return {name: self._file(name, context, is_private=is_private) for name in TRANSFER_FILES}

    def _file(self, name: str, context: Mapping[str, Any], *, is_private: bool) -> str:
        template = f"{self._settings.compute_environment}/{name}.j2"
        return self._text(template, context, is_private=is_private)

    def _manifest(self, template: str, *, names: Names, **context: Any) -> Manifest:
        return _read_yaml(template, self._text(template, {"names": plain_names(names), **context}))

    def _job_manifest(self, names: IdNames, fingerprint: str, **context: Any) -> Manifest:
        """Render the Job; what differs from other Jobs in name and request alone is parsed once.

        A name and a hash are letters and digits: whatever stands there, YAML reads the same form.
        """
        template = "job.yaml.j2"
        text = self._text(template, {"names": plain_names(names), **context})
        words = {names.base: "q" * len(names.base), fingerprint: "Q" * len(fingerprint)}
        if not JOB_NAME.fullmatch(names.base) or any(blank in text for blank in words.values()):
            return _read_yaml(template, text)
        for word, blank in words.items():
            text = text.replace(word, blank)
        filled = _read_blank(template, text)
        for word, blank in words.items():
            filled = filled.replace(blank, word)
        manifest: Manifest = orjson.loads(filled)
        return manifest

    def _text(self, template: str, context: Mapping[str, Any], *, is_private: bool = False) -> str:
        self._environment.begin()
        try:
            return self._environment.get_template(template).render(
                {"settings": self._plain_settings, **context}
            )
        except RENDERING_ERRORS as error:
            raise _explained(template, error, is_private=is_private) from (
                None if is_private else error
            )


def _keeps_genotypes(parameters: str) -> bool:
    try:
        found = json.loads(parameters)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("publish_cache") is False


def _explained(template: str, error: BaseException, *, is_private: bool) -> ConfigurationError:
    """Say what is wrong and where; of a private context no word but those written in our code.

    A template may put any value of its context into an error: as a key, a name, a message.
    """
    if isinstance(error, TemplateSyntaxError):
        return ConfigurationError(f"{error.name or template}, line {error.lineno}: {error.message}")
    place = f"{template}, line {_line_of(error.__traceback__)}"
    if isinstance(error, Unwritable):
        return ConfigurationError(f"{place}: {error}")
    if is_private:
        return ConfigurationError(f"{place}: {type(error).__name__}; its text may hold a secret")
    if isinstance(error, TemplateNotFound):
        return ConfigurationError(
            f"{error.name}: no such template in TEMPLATES_DIR or in the package"
            " (COMPUTE_ENVIRONMENT names the folder)"
        )
    if isinstance(error, ConfigurationError):  # the template's own words
        return error
    return ConfigurationError(f"{place}: {error}")


def _read_yaml(template: str, text: str) -> Manifest:
    """Parse what a template gives. Raises ConfigurationError."""
    try:
        manifest = _read_json(text) or yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        # The error's own text quotes the file, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1} of what it gives" if mark else "what it gives"
        problem = getattr(error, "problem", None) or "not readable"
        raise ConfigurationError(f"{template}: {place} is no YAML: {problem}") from None
    if not isinstance(manifest, dict):
        raise ConfigurationError(f"{template}: gives no Kubernetes object")
    return manifest


def _read_json(text: str) -> Any:
    """Read a text that is JSON, and so YAML too, ten times faster; None for any other."""
    if text.startswith("{"):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(text)
    return None


@lru_cache(maxsize=8)
def _read_blank(template: str, text: str) -> str:
    """Parse what a template gives and write it as JSON: parsing YAML outlasts all else here."""
    try:
        return json.dumps(_read_yaml(template, text))
    except TypeError as error:
        raise ConfigurationError(f"{template}: gives what JSON cannot hold: {error}") from None


def _line_of(trace: TracebackType | None) -> int:
    """Find the last template line in a traceback; Jinja puts its files there."""
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(".j2"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
