"""Every variable's rule and what is said when it is broken; secrets that stay secret."""

import base64
import json
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from pydantic import SecretStr

from pyvatti.errors import ConfigurationError
from pyvatti.settings import PACKAGE, Settings, describe_settings, load_settings

SECRET = "a-value-nobody-may-see"
REQUIRED = {
    "NAMESPACE": "intervene-dev",
    "API_AUTH": "token",
    "API_TOKENS": f"{SECRET}-1,{SECRET}-2",
    "TOWER_TOKEN": SECRET,
    "TOWER_WORKSPACE": "7",
    "GLOBUS_DOMAIN": "https://globus.example.org",
    "GLOBUS_CLIENT_ID": "client",
    "GLOBUS_CLIENT_SECRET": SECRET,
    "GLOBUS_SCOPES": "scope",
    "KEY_HANDLER_TOKEN": SECRET,
    "KEY_HANDLER_PASSWORD": SECRET,
    "KEY_HANDLER_URL": "https://keys.example.org",
    "GCP_PROJECT": "project",
    "GCP_LOCATION": "europe-west2",
    "NOTIFY_URL": "https://backend.example.org/",
    "NOTIFY_TOKEN": SECRET,
}
SECRETS = {
    *("TOWER_TOKEN", "GLOBUS_CLIENT_SECRET", "KEY_HANDLER_TOKEN", "KEY_HANDLER_PASSWORD"),
    *("NOTIFY_TOKEN", "API_TOKENS"),
}


@contextmanager
def environment(**changes: str | None) -> Iterator[None]:
    """Set the variables of a good configuration and some more; None leaves one out."""
    wanted = {name: value for name, value in (REQUIRED | changes).items() if value is not None}
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def loaded(**changes: str | None) -> Settings:
    with environment(**changes):
        return load_settings()


def refusal(**changes: str | None) -> str:
    """Give what is said of a configuration that is refused."""
    with environment(**changes), pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_what_must_be_set_is_exactly_what_has_no_default():
    required = {name for name, field in Settings.model_fields.items() if field.is_required()}

    assert {name.upper() for name in required} | {"API_TOKENS"} == REQUIRED.keys()


@pytest.mark.parametrize("name", sorted(REQUIRED.keys() - {"API_TOKENS"}))
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_what_is_missing_or_empty_is_named(name: str, value: str | None):
    assert refusal(**{name: value}) == f"{name}: Field required"


def test_everything_missing_is_named_at_once():
    said = refusal(**dict.fromkeys(REQUIRED))

    assert all(f"{name}: Field required" in said for name in REQUIRED.keys() - {"API_TOKENS"})


WRONG = [
    ("NAMESPACE", "Intervene", "pattern"),
    ("NAMESPACE", "1st", "pattern"),
    ("NAMESPACE", "dev-", "pattern"),
    ("NAMESPACE", "n" * 40, "at most 39 characters"),
    ("INSTANCE", "a/b", "pattern"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("PORT", "-1", "greater than or equal to 0"),
    ("LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
    ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ("API_AUTH", "basic", "'token' or 'none'"),
    ("TOWER_WORKSPACE", "mine", "valid integer"),
    ("TOWER_WORKSPACE", "-1", "greater than or equal to 0"),
    ("TOWER_API_URL", "api.cloud.seqera.io", "pattern"),
    ("TOWER_API_URL", "ftp://example.org", "pattern"),
    ("NOTIFY_URL", "https://", "pattern"),
    ("NOTIFY_URL", "https://user:password@example.org", "pattern"),
    ("NOTIFY_URL", "https://example.org/a b", "pattern"),
    ("NOTIFY_URL", "https://[example.org]", "must be an address"),
    ("NOTIFY_URL", "https://[::1", "must be an address"),
    ("NOTIFY_URL", "https://example.org:65536", "must be an address"),
    ("NOTIFY_URL", "https://:443", "must be an address"),
    ("NOTIFY_STATUS_PATH", "/status", "pattern"),
    ("NOTIFY_STATUS_PATH", "{id}", "pattern"),
    ("POLL_INTERVAL", "0", "more than 0 seconds"),
    ("POLL_INTERVAL", "-5", "more than 0 seconds"),
    *(("POLL_INTERVAL", value, "") for value in ("soon", "nan", "inf", "1e300", "60 s")),
    ("TIMEOUT_SECONDS", "99999999999", "at most 100 years"),
    ("GLOBFLOW_REVISION", "-r main", "pattern"),
    ("PGSC_CALC_REVISION", "$(id)", "pattern"),
    ("COMPUTE_ENVIRONMENT", "../secrets", "pattern"),
    ("MIN_OVERLAP", "1.1", "less than or equal to 1"),
    ("MIN_OVERLAP", "nan", ""),
    ("KUBERNETES_VERSION", "new", "pattern"),
    ("DRIVER_CPU", "one", "pattern"),
    ("DRIVER_MEMORY", "2 Gi", "pattern"),
    ("DRIVER_GRACE_SECONDS", "299", "greater than or equal to 300"),
    ("DRIVER_SERVICE_ACCOUNT_TOKEN", "perhaps", "valid boolean"),
    ("MAX_MEMORY", "64GB", "pattern"),
    ("MAX_TIME", "1day", "pattern"),
    ("MAX_CPUS", "0", "greater than or equal to 1"),
    ("MAX_CONCURRENT_JOBS", "0", "greater than or equal to 1"),
    ("MAX_CONCURRENT_JOBS", "many", "valid integer"),
    ("KUEUE_QUEUE", "Queue_1", "pattern"),
    ("TOWER_TOKEN", "two\nlines", "control character"),
    *(
        ("NOTIFY_SIGNING_SECRET", value, "whsec_ and the base64 of 24 to 64 random bytes")
        for value in (
            *("secret", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 100, "A" * 32),
            *("whsec_" + "é" * 32, "whsec_" + "A" * 31 + "-", "whsec_whsec_" + "A" * 32),
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "rule"), WRONG)
def test_what_is_wrong_is_named_with_its_rule_and_never_repeated(name: str, value: str, rule: str):
    said = refusal(**{name: value})

    assert said.startswith(f"{name}: ")
    assert rule in said
    if (name in {*SECRETS, "NOTIFY_SIGNING_SECRET"} and len(value) > 10) or "password" in value:
        assert value.strip() not in said
        assert "password" not in said


def test_a_token_among_others_is_named_by_its_place():
    said = refusal(API_TOKENS=f"{SECRET},two\tparts")

    assert said == "API_TOKENS.1: must not hold a line break or another control character"


def test_rules_between_variables_name_all_of_them():
    assert refusal(API_TOKENS="") == (
        "settings: API_TOKENS must name at least one token while API_AUTH is token"
    )
    assert refusal(API_TOKENS=" , ,") == refusal(API_TOKENS=None)
    said = refusal(LEASE_DURATION="5", RENEW_DEADLINE="10")
    assert all(name in said for name in ("LEASE_DURATION", "RENEW_DEADLINE", "RETRY_PERIOD"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("60", 60, id="bare seconds, as old values have them"),
        pytest.param("2.5", 2.5, id="a fraction of seconds"),
        pytest.param("PT1H", 3600, id="ISO 8601"),
        pytest.param("1:00:00", 3600, id="hours, minutes, seconds"),
        pytest.param("172800", 172_800, id="two days"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_durations_are_read_whatever_the_time_zone(value: str, seconds: float, zone: str):
    with environment(TZ=zone, DEPLOYED_TIMEOUT_SECONDS=value):
        time.tzset()
        read = load_settings().deployed_timeout_seconds
    time.tzset()

    assert read == timedelta(seconds=seconds)


def test_tokens_are_split_and_trimmed():
    one, two, three = ("1" * 16, "2" * 16, "3" * 17)
    tokens = loaded(API_TOKENS=f" {one}, {two} ,,{three} ").api_tokens

    assert [token.get_secret_value() for token in tokens] == [one, two, three]


def test_a_token_that_could_be_guessed_is_refused_by_its_place():
    said = refusal(API_TOKENS=f"{'x' * 16},{'y' * 15}")

    assert said.startswith("API_TOKENS.1: ")
    assert "at least 16" in said
    assert "yyy" not in said


def test_a_host_is_allowed_without_its_port():
    assert "pattern" in refusal(ALLOWED_HOSTS="a,b:80")


CREDENTIALS_GO_TO = ("TOWER_API_URL", "GLOBUS_DOMAIN", "KEY_HANDLER_URL")


@pytest.mark.parametrize("name", CREDENTIALS_GO_TO)
@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("https://example.org", True),
        ("http://localhost:8080/x", True),
        ("http://127.3.2.1", True),
        ("http://[::1]:8080", True),
        ("http://example.org", False),
        ("http://10.0.0.1:8080", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://[::2]", False),
    ],
)
def test_credentials_go_over_tls_or_stay_on_the_machine(name, url, is_taken):
    if not is_taken:
        assert refusal(**{name: url}).startswith(f"settings: {name} must begin with https://")
    changes = {name: url} if is_taken else {name: url, "ALLOW_HTTP": "true"}
    assert vars(loaded(**changes))[name.lower()] == url


@pytest.mark.parametrize("name", sorted(SECRETS - {"API_TOKENS"}))
def test_a_secret_loses_the_line_break_its_file_ended_with(name: str):
    settings = loaded(**{name: "secret\r\n"})

    assert getattr(settings, name.lower()).get_secret_value() == "secret"
    assert refusal(**{name: "\n"}).startswith(f"{name}: ")


@pytest.mark.parametrize("size", [24, 25, 64])
@pytest.mark.parametrize("padding", ["=", ""], ids=["padded", "not padded"])
def test_a_signing_secret_is_taken_as_it_is_handed_out(size: int, padding: str):
    secret = "whsec_" + base64.b64encode(bytes(range(size))).decode()
    if not padding:
        secret = secret.rstrip("=")

    read = loaded(NOTIFY_SIGNING_SECRET=secret + "\n").notify_signing_secret

    assert read is not None
    assert read.get_secret_value() == secret
    assert loaded(NOTIFY_SIGNING_SECRET="").notify_signing_secret is None


def test_addresses_lose_their_final_slash():
    assert loaded(NOTIFY_URL="https://example.org/a/").notify_url == "https://example.org/a"


def test_an_empty_variable_means_the_default():
    assert loaded(POLL_INTERVAL="", PORT="", SPOT="") == loaded()


def test_what_is_none_of_ours_is_ignored():
    assert loaded(PORTS="1", NAMESPACES="x") == loaded()


def test_secrets_are_in_no_text_made_of_the_settings():
    settings = loaded()

    for text in (
        *(repr(settings), str(settings), f"{settings}", settings.model_dump_json()),
        *(repr(settings.model_dump()), json.dumps(settings.model_dump(mode="json"))),
        repr(settings.tower_token),
    ):
        assert SECRET not in text


def test_every_secret_is_known_as_one():
    kept = {
        name.upper()
        for name, value in loaded()
        if isinstance(value, SecretStr) or (isinstance(value, list) and value)
    }

    assert kept == SECRETS


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        loaded().port = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(loaded())) == loaded()  # noqa: S301 - our own bytes


def test_the_description_has_a_row_for_every_variable_and_no_path_of_this_machine():
    rows = describe_settings()

    assert [row["name"].lower() for row in rows] == list(Settings.model_fields)
    assert all(row["meaning"] and "|" not in row["meaning"] for row in rows)
    assert not any(str(PACKAGE.parent) in row["default"] for row in rows)
    defaults = {row["name"]: row["default"] for row in rows}
    assert defaults["RECORD_RETENTION_SECONDS"] == "1209600"
    assert defaults["BUCKET_INTERVAL"] == "2.2"
    assert defaults["SPOT"] == "true"
    assert defaults["API_AUTH"] == "(required)"
