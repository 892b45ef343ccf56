"""The command line: its texts, exit codes and output, in this process and without a service."""

import json
import stat
from pathlib import Path

import pytest
import yaml
from cli_calls import invoke
from stage import JOB, PAYLOADS

from pyvatti import __version__

BASE = JOB.lower()
GOOD = str(PAYLOADS / "launch-ok-trait-pfile.json")
BAD = str(PAYLOADS / "launch-bad-sampleset-injection.json")
README = Path(__file__).parent.parent / "README.md"
SECRET = "configured-secret"
SETTINGS = {
    "NAMESPACE": "intervene-dev",
    "API_AUTH": "none",
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
    "NOTIFY_URL": "https://backend.example.org",
    "NOTIFY_TOKEN": SECRET,
}
COMMANDS = [
    [],
    ["serve"],
    ["demo"],
    ["sandbox"],
    ["settings"],
    ["validate"],
    ["render"],
    ["jobs"],
    *(["jobs", name] for name in ("list", "show", "cancel", "redeliver", "log", "release")),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "pyvatti")
def test_every_command_explains_itself_in_plain_text(words: list[str]):
    code, said, _ = invoke(*words, "--help")

    assert code == 0
    assert said.startswith("Usage: ")
    assert said.isascii()
    assert "\x1b" not in said


def test_the_list_of_commands_tells_each_in_a_whole_sentence():
    _, said, _ = invoke("--help")

    lines = said[said.index("Commands:") :].splitlines()[1:]
    assert len(lines) == 7
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("words", [[], ["jobs"]])
def test_without_a_command_the_help_is_shown_and_the_use_was_wrong(words: list[str]):
    code, said, complained = invoke(*words)

    assert code == 2
    assert "Commands:" in said + complained


@pytest.mark.parametrize(
    "words",
    [
        ["explode"],
        ["jobs", "explode"],
        ["validate"],
        ["validate", "a", "b"],
        ["validate", GOOD, "--output", "xml"],
        ["demo", "--scenario", "peace"],
        ["sandbox", "--port", "70000"],
        ["jobs", "list", "--limit", "0"],
        ["jobs", "list", "--state", "Lost"],
        ["jobs", "log", JOB, "--container", "sidecar"],
    ],
    ids=" ".join,
)
def test_a_wrong_use_ends_with_2(words: list[str]):
    code, said, complained = invoke(*words)

    assert (code, said) == (2, "")
    assert "Traceback" not in complained


def test_the_version_is_told():
    assert invoke("--version") == (0, f"{__version__}\n", "")


def test_the_table_of_settings_is_that_of_the_readme():
    _, table, _ = invoke("settings")
    _, listed, _ = invoke("settings", "--output", "json")

    text = README.read_text()
    shown = text[text.index("<!-- settings -->\n") : text.index("<!-- /settings -->")]
    assert shown == f"<!-- settings -->\n{table}"
    assert all(row["meaning"] for row in json.loads(listed))


def test_a_valid_request_ends_with_0():
    assert invoke("validate", GOOD) == (0, f"{JOB} is valid\n", "")
    assert invoke("validate", "-", given=Path(GOOD).read_bytes())[0] == 0
    code, said, _ = invoke("validate", GOOD, "--output", "json")
    assert (code, json.loads(said)["pipeline_param"]["id"]) == (0, JOB)


def test_a_request_that_breaks_a_rule_ends_with_1_and_names_field_and_rule():
    code, said, complained = invoke("validate", BAD)

    assert (code, said) == (1, "")
    assert complained.startswith("pipeline_param.target_genomes.0.sampleset: must begin with")
    code, said, complained = invoke("validate", BAD, "--output", "json")
    assert (code, complained) == (1, "")
    assert json.loads(said)[0].keys() == {"field", "rule"}
    assert invoke("validate", "-", given=b"\xff")[0] == 1
    assert invoke("validate", "-", given=b"")[0] == 1


@pytest.mark.parametrize("path", ["/nowhere/at/all.json", "/"])
def test_a_file_that_cannot_be_read_ends_with_2_and_is_named(path: str):
    code, said, complained = invoke("validate", path)

    assert (code, said) == (2, "")
    assert complained.startswith(f"pyvatti: {path}: ")
    assert complained.count("\n") == 1


def manifests_in(text: str) -> list[tuple[str, str]]:
    return [(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(text)]


EVERYTHING = [("Job", BASE), ("Secret", BASE), ("Secret", f"{BASE}-transfer")]


def test_what_is_rendered_is_redacted_unless_asked_otherwise():
    code, said, _ = invoke("render", GOOD, **SETTINGS)
    _, as_json, _ = invoke("render", GOOD, "--output", "json", **SETTINGS)
    _, open_text, _ = invoke("render", "-", "--show-secrets", given=_bytes(GOOD), **SETTINGS)

    assert code == 0
    assert manifests_in(said) == manifests_in(open_text) == EVERYTHING
    assert json.loads(as_json) == list(yaml.safe_load_all(said))
    assert "(redacted)" in said
    assert "example.org/Sample-Set" not in said
    opened = [item for item in yaml.safe_load_all(open_text) if item["kind"] == "Secret"]
    assert SECRET not in said
    assert any("(redacted)" not in str(item) for item in opened)


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("output", ["text", "json"])
def test_rendering_to_a_folder_writes_one_private_file_an_object(tmp_path: Path, output: str):
    folder = tmp_path / "new" / "folder"

    code, said, _ = invoke("render", GOOD, "-o", str(folder), "--output", output, **SETTINGS)

    ending = "json" if output == "json" else "yaml"
    names = [f"{kind.lower()}-{name}.{ending}" for kind, name in EVERYTHING]
    assert code == 0
    assert said.splitlines() == [str(folder / name) for name in names]
    for path, expected in zip((folder / name for name in names), EVERYTHING, strict=True):
        assert manifests_in(path.read_text()) == [expected]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rendering_that_cannot_be_done_says_why(tmp_path: Path):
    (tmp_path / "taken").touch()

    unset = invoke("render", GOOD)
    refused = invoke("render", BAD, **SETTINGS)
    unwritable = invoke("render", GOOD, "-o", str(tmp_path / "taken"), **SETTINGS)

    assert unset[0] == 2
    assert "NAMESPACE: Field required" in unset[2]
    assert refused[0] == 1
    assert unwritable[0] == 2
    assert "taken: File exists" in unwritable[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"API_AUTH": ""}, "API_AUTH: Field required", id="API_AUTH empty"),
        pytest.param({"API_AUTH": "off"}, "API_AUTH: Input should be", id="API_AUTH off"),
        pytest.param({"API_AUTH": "token"}, "API_TOKENS must name", id="no tokens"),
        pytest.param({"TOWER_TOKEN": ""}, "TOWER_TOKEN: Field required", id="a secret empty"),
        pytest.param({"PORT": "http"}, "PORT: Input should be a valid integer", id="a bad port"),
        pytest.param({"POLL_INTERVAL": "soon"}, "POLL_INTERVAL: ", id="a bad duration"),
        pytest.param(
            {"NAMESPACE": "", "GCP_PROJECT": ""},
            "NAMESPACE: Field required; GCP_",
            id="two missing",
        ),
    ],
)
def test_serve_without_a_good_setting_ends_with_2_and_names_it(change: dict[str, str], said: str):
    code, printed, complained = invoke("serve", **(SETTINGS | change))

    assert (code, printed) == (2, "")
    assert complained.startswith(f"pyvatti: {said}") or f" {said}" in complained
    assert complained.count("\n") == 1
    assert SECRET not in complained


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://nowhere.invalid", "nonsense", "http://[::1", ""]
)
def test_a_service_that_cannot_be_reached_ends_with_3(url: str):
    code, said, complained = invoke("jobs", "show", JOB, "--url", url)

    assert (code, said) == (3, "")
    assert complained.startswith(f"pyvatti: {url}: ")
    assert complained.count("\n") == 1


def test_a_token_that_fits_no_header_is_not_repeated():
    for token in ("secret\ntoken", "secret\x00token", "sécret"):
        code, said, complained = invoke(
            "jobs", "list", "--token", token, "--url", "http://127.0.0.1:1"
        )

        assert (code, said) == (2, "")
        assert "cret" not in complained
