"""The only reader of the environment: one frozen Settings, built once and passed down.

Names are the predecessor's, so that existing values carry over. Durations are in seconds.
"""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pyvatti.driver_pod import DriverPod, DriverPodJson
from pyvatti.errors import ConfigurationError
from pyvatti.kinds import (
    CallerToken,
    HeaderToken,
    HttpBase,
    Quantity,
    Revision,
    Seconds,
    SigningSecret,
    Token,
    is_exposed,
    split,
)

PACKAGE = Path(__file__).parent
MAX_NAMESPACE = 39  # so that {namespace}-{id}-results fits the 63 characters of a bucket name


def _packaged_templates() -> Path:
    """Find templates/ inside the wheel or, for an editable install, beside the package."""
    inside = PACKAGE / "templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


PACKAGED_TEMPLATES = _packaged_templates()


class Settings(BaseSettings):
    """All settings. A field without a default must be set."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    # Where it runs
    namespace: Annotated[
        str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=MAX_NAMESPACE)
    ] = Field(description="Namespace of all objects; first part of bucket and run names")
    instance: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=53)] = (
        Field(
            "pyvatti",
            description="Name of this installation: label of its objects, name of its Lease",
        )
    )
    host: str = Field("0.0.0.0", description="Address the API listens on")
    port: int = Field(8080, ge=0, le=65535, description="Port the API listens on")
    keep_alive: Seconds = Field(
        timedelta(seconds=90), description="How long an idle connection of a caller is kept"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is readable on a terminal, JSON elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level logged"
    )

    # Who may call
    api_auth: Literal["token", "none"] = Field(description="`token` (bearer) or an explicit `none`")
    api_tokens: Annotated[list[CallerToken], NoDecode, BeforeValidator(split)] = Field(
        default_factory=list,
        description="Accepted bearer tokens of at least 16 characters, separated by commas",
    )
    allowed_hosts: Annotated[str, Field(pattern=r"^[A-Za-z0-9._, -]*$")] = Field(
        "",
        description="Further host names that callers use, separated by commas; "
        "with `API_AUTH=none` others are refused",
    )
    allow_http: bool = Field(
        False, description="Send credentials of Seqera, Globus and key handler over plain HTTP too"
    )

    # Seqera Platform
    tower_token: HeaderToken = Field(description="Access token of Seqera Platform")
    tower_workspace: int = Field(ge=0, description="Numeric workspace id")
    tower_api_url: HttpBase = Field(
        "https://api.cloud.seqera.io", description="Base URL of the API"
    )
    poll_interval: Seconds = Field(
        timedelta(seconds=60), description="Time between two Seqera passes"
    )

    # Data transfer
    globus_domain: HttpBase = Field(description="HTTPS address of the Globus guest collection")
    globus_client_id: str = Field(min_length=1, description="Globus client id")
    globus_client_secret: Token = Field(description="Globus client secret")
    globus_scopes: str = Field(min_length=1, description="Globus scopes")
    key_handler_token: Token = Field(description="base64 of user:password of the key handler")
    key_handler_password: Token = Field(description="Password of the stored keys")
    key_handler_url: HttpBase = Field(description="Base URL of the key handler")
    globflow_revision: Revision = Field("2.0.0", description="Revision of gdp-public/globflow")

    # Google Cloud
    gcp_project: str = Field(min_length=1, description="Google Cloud project of buckets and Batch")
    gcp_location: str = Field(min_length=1, description="Location of buckets and Batch")
    bucket_interval: Seconds = Field(
        timedelta(seconds=2.2), description="Least time between two bucket creates or deletes"
    )
    results_retention: Seconds = Field(
        timedelta(days=14), description="Least time results and their bucket outlive their job"
    )

    # The backend
    notify_url: HttpBase = Field(description="Base URL of the backend or its gateway")
    notify_token: HeaderToken = Field(description="base64 of user:password, sent as Basic")
    notify_signing_secret: SigningSecret | None = Field(
        None, description="`whsec_…`: sign notifications as Standard Webhooks; empty: not signed"
    )
    notify_status_path: Annotated[str, Field(pattern=r"^/.*\{id\}")] = Field(
        "/bff/pipeline-manager/integration/pipeline/{id}/status",
        description="Path of the status route",
    )
    notify_give_up_seconds: Seconds = Field(
        timedelta(days=7), description="Age at which an event is given up"
    )

    # The driver
    compute_environment: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] = Field(
        "google-batch", description="Folder of templates/ with the Nextflow configuration"
    )
    templates_dir: Path = Field(
        default_factory=_packaged_templates,
        description="Folder of templates; missing files are the packaged ones",
    )
    nextflow_image: str = Field(
        "docker.io/nextflow/nextflow:25.10.4", description="Image of both containers"
    )
    nextflow_version: str = Field(
        "", description="Version inside the image; empty: the image's tag"
    )
    pgsc_calc_revision: Revision = Field("v2.2.0", description="Revision of gdp-public/pgsc_calc")
    min_overlap: float = Field(
        0.75, ge=0, le=1, description="Least share of a score's variants to be found"
    )
    kubernetes_version: Annotated[str, Field(pattern=r"^v?1\.[0-9]+")] = Field(
        "1.30", description="Version of the cluster; before 1.28 a Job knows fewer fields"
    )
    driver_service_account: str = Field("nextflow", description="Service account of the driver pod")
    driver_service_account_token: bool = Field(
        False, description="Mount the service account's Kubernetes token into the driver pod"
    )
    driver_cpu: Quantity = Field("1", description="CPU request and limit of each driver container")
    driver_memory: Quantity = Field(
        "2Gi", description="Memory request and limit of each driver container"
    )
    driver_storage: Quantity = Field(
        "10Gi", description="Ephemeral storage of each driver container"
    )
    driver_grace_seconds: int = Field(300, ge=300, description="Grace period of the driver pod")
    driver_pod: DriverPodJson = Field(DriverPod(), description="More of the driver pod, as JSON")
    max_cpus: int = Field(16, ge=1, description="Most CPUs of one task")
    max_memory: Annotated[str, Field(pattern=r"^\d+\.(MB|GB)$")] = Field(
        "64.GB", description="Most memory of one task"
    )
    max_time: Annotated[str, Field(pattern=r"^\d+\.[mhd]$")] = Field(
        "24.h", description="Longest run of one task"
    )
    spot: bool = Field(True, description="Run tasks on spot machines")
    max_spot_attempts: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Retries by Batch itself; empty: 0 before Nextflow 26.04, else 3"
    )
    batch_service_account: str = Field(
        "", description="E-mail of the service account of Batch tasks"
    )
    wave: bool = Field(False, description="Use Wave containers")
    fusion: bool = Field(False, description="Use the Fusion file system; needs Wave")

    # Limits
    max_concurrent_jobs: int = Field(
        10, ge=1, description="Jobs released and not finished at a time"
    )
    timeout_seconds: Seconds = Field(timedelta(hours=1), description="From release to Deployed")
    deployed_timeout_seconds: Seconds = Field(
        timedelta(hours=48), description="From Deployed to the end"
    )
    record_retention_seconds: Seconds = Field(
        timedelta(days=14), description="Age at which a record is deleted"
    )
    kueue_queue: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")] = Field(
        "", description="LocalQueue of Kueue; it then decides when a job starts"
    )
    max_evictions: int = Field(
        5, ge=0, le=90, description="Times Kueue may take a started job back before it fails"
    )
    failed_grace: Seconds = Field(
        timedelta(minutes=4), description="How long a dead driver waits for Seqera's reason"
    )
    complete_grace: Seconds = Field(
        timedelta(minutes=5), description="How long a finished driver waits for Seqera's word"
    )
    telemetry_grace: Seconds = Field(
        timedelta(minutes=10),
        description="How long a running driver without Seqera row stays Created",
    )
    hang_grace: Seconds = Field(
        timedelta(minutes=10), description="How long a driver may live on after its run's end"
    )
    image_grace: Seconds = Field(
        timedelta(minutes=2), description="How long an image error may last"
    )
    node_grace: Seconds = Field(
        timedelta(minutes=10), description="How long the driver's node may be silent"
    )
    accept_grace: Seconds = Field(
        timedelta(minutes=10), description="Age at which a half accepted job is withdrawn"
    )
    denial_grace: Seconds = Field(
        timedelta(minutes=10), description="How long the cluster's policy may deny a launch"
    )
    sweep_interval: Seconds = Field(
        timedelta(hours=1), description="Time between two searches for leftovers"
    )

    # Leadership
    lease_duration: Seconds = Field(timedelta(seconds=15), description="Life of an unrenewed Lease")
    renew_deadline: Seconds = Field(
        timedelta(seconds=10), description="The holder gives up after this time"
    )
    retry_period: Seconds = Field(
        timedelta(seconds=2), description="Time between two attempts on the Lease"
    )
    stop_grace: Seconds = Field(
        timedelta(seconds=560),
        description="Longest clean-up after SIGTERM while the namespace is being deleted",
    )

    extra_ca_file: str = Field(
        "", description="PEM file of further authorities, trusted at all four neighbours"
    )

    # Defined by their libraries; read here so that start-up can speak about them
    storage_emulator_host: str = Field("", description="Address of a Cloud Storage stand-in")
    kubeconfig: str = Field(
        "", description="Path of a kubeconfig; empty: the pod's service account"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.api_auth == "token" and not self.api_tokens:
            raise ValueError("API_TOKENS must name at least one token while API_AUTH is token")
        for name in ("tower_api_url", "globus_domain", "key_handler_url"):
            if is_exposed(getattr(self, name)) and not self.allow_http:
                raise ValueError(
                    f"{name.upper()} must begin with https://, for credentials are sent there; "
                    "plain HTTP is for loopback addresses, or with ALLOW_HTTP"
                )
        if not self.lease_duration > self.renew_deadline > 1.2 * self.retry_period:
            raise ValueError("LEASE_DURATION > RENEW_DEADLINE > 1.2 x RETRY_PERIOD must hold")
        return self

    @property
    def nextflow(self) -> str:
        """Version of Nextflow in the driver image, such as 25.10.4."""
        return self.nextflow_version or self.nextflow_image.rpartition(":")[2].partition("@")[0]


def secret_values(settings: Settings) -> list[str]:
    """Give all that must never be told: each secret, and what those that are base64 stand for."""
    held = [value for item in vars(settings).values() for value in _secrets_in(item)]
    return [form for value in held for form in (value, *_parts(value))]


def _secrets_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _secrets_in(item)]
    return [value.get_secret_value()] if isinstance(value, SecretStr) else []


def _parts(value: str) -> list[str]:
    """Give user:password and the password of a Basic token, the key of a signing secret."""
    key = [value.removeprefix("whsec_")] if value.startswith("whsec_") else []
    try:
        pair = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return key
    return [*key, pair, pair.partition(":")[2]] if ":" in pair else key


def load_settings() -> Settings:
    """Read the environment. Raises ConfigurationError naming each variable and its rule."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{_place(*item['loc'])}: " + item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("; ".join(lines)) from None


def _place(variable: int | str = "", *parts: int | str) -> str:
    return ".".join([str(variable).upper() or "settings", *map(str, parts)])


def describe_settings() -> list[dict[str, str]]:
    """Give `{"name", "default", "meaning"}` of every environment variable, in order.

    Durations are given in seconds.
    """
    return [
        {
            "name": name.upper(),
            "default": "(required)" if field.is_required() else _default_text(name, field),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _default_text(name: str, field: FieldInfo) -> str:
    if name == "templates_dir":
        return "packaged"  # a path of this machine
    value = field.get_default(call_default_factory=True)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.12g}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value or value == 0 else ""
