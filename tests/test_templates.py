"""Templates: each value passes a serialiser, operators may replace them, mistakes are named."""

import pytest
from jinja2 import Environment, nodes
from rendering_samples import (
    SECRETS,
    WHOSE,
    files_of,
    names,
    request,
    settings,
)

from pyvatti.errors import ConfigurationError
from pyvatti.manifests import Renderer
from pyvatti.manifests.serialisers import FILTERS
from pyvatti.settings import PACKAGED_TEMPLATES

TEMPLATES = sorted(str(p.relative_to(PACKAGED_TEMPLATES)) for p in PACKAGED_TEMPLATES.rglob("*.j2"))
SERIALISERS = {
    ".yaml": {"yaml"},
    ".config": {"groovy", "unit"},
    "scm": {"groovy"},
    ".json": {"json", "refuse"},
    ".properties": {"properties"},
}


def overlay(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Renderer(settings(templates_dir=folder))


def message(renderer):
    with pytest.raises(ConfigurationError) as caught:
        renderer.check()
    return str(caught.value)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_expression_passes_the_serialiser_of_its_format(name):
    environment = Environment(autoescape=False)  # noqa: S701 - parsed, never rendered
    environment.filters.update(FILTERS)
    allowed = next(
        filters
        for ending, filters in SERIALISERS.items()
        if name.removesuffix(".j2").endswith(ending)
    )

    tree = environment.parse((PACKAGED_TEMPLATES / name).read_text())
    outermost = [
        child.name if isinstance(child, nodes.Filter) else f"none, line {child.lineno}"
        for output in tree.find_all(nodes.Output)
        for child in output.nodes
        if not isinstance(child, nodes.TemplateData)
    ]

    assert set(outermost) <= allowed


def test_packaged_templates_pass_the_check():
    Renderer(settings()).check()


def test_an_operators_file_wins_and_the_rest_stays(tmp_path):
    renderer = overlay(tmp_path, "google-batch/scm.j2", "// {{ names.base | groovy }}\n")

    files = files_of(renderer.driver_secret(request(), names(), WHOSE))

    assert files["scm"] == "// 'intp00000000513'\n"
    assert files["transfer.config"].startswith("// Nextflow configuration")
    renderer.check()


def test_an_operator_may_add_a_compute_environment(tmp_path):
    for path in (PACKAGED_TEMPLATES / "google-batch").iterdir():
        overlay(tmp_path, f"our-slurm/{path.name}", path.read_text())

    Renderer(settings(templates_dir=tmp_path, compute_environment="our-slurm")).check()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param(
            "job.yaml.j2",
            "kind: Job\nname: {{ nmaes.base | yaml }}\n",
            "job.yaml.j2, line 2: 'nmaes' is undefined",
            id="undefined variable",
        ),
        pytest.param(
            "job.yaml.j2",
            "kind: Job\n\nname: {{ settings.nothing | yaml }}\n",
            "job.yaml.j2, line 3: ",
            id="undefined setting",
        ),
        pytest.param(
            "google-batch/scm.j2",
            "a\n{% if %}\n",
            "google-batch/scm.j2, line 2: Expected an expression",
            id="syntax",
        ),
        pytest.param(
            "google-batch/scm.j2",
            "a\n{{ names | groovi }}\n",
            "google-batch/scm.j2, line 2: No filter named 'groovi'",
            id="unknown filter",
        ),
        pytest.param(
            "google-batch/transfer.config.j2",
            "x = 1\ntime = {{ '24 hours' | unit }}\n",
            "google-batch/transfer.config.j2, line 2: must be an amount such as 64.GB or 24.h",
            id="bad amount",
        ),
        pytest.param(
            "record.yaml.j2",
            "kind: ConfigMap\ndata: {a: b\n",
            "record.yaml.j2: line 3 of what it gives is no YAML",
            id="bad YAML",
        ),
        pytest.param(
            "record.yaml.j2",
            "- a\n",
            "record.yaml.j2: gives no Kubernetes object",
            id="a list",
        ),
        pytest.param(
            "secret.yaml.j2",
            "a: \xff".encode("latin-1").decode("latin-1") + "\n{% include 'gone.j2' %}",
            "gone.j2: no such template",
            id="missing include",
        ),
    ],
)
def test_a_mistake_in_a_template_is_named_at_start_up(tmp_path, name, text, said):
    assert said in message(overlay(tmp_path, name, text))


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "job.yaml.j2").write_bytes(b"kind: \xff\xfe")

    assert "job.yaml.j2" in message(Renderer(settings(templates_dir=tmp_path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"compute_environment": "slurm"}, "COMPUTE_ENVIRONMENT", id="no folder"),
        pytest.param({"namespace": "a--b"}, "NAMESPACE", id="no run name"),
        pytest.param({"pgsc_calc_revision": "3.0.0-alpha.1"}, "PGSC_CALC_REVISION", id="3.x"),
    ],
)
def test_a_setting_that_cannot_be_rendered_is_named_at_start_up(changes, said):
    assert said in message(Renderer(settings(**changes)))


def test_a_missing_templates_folder_is_named_at_start_up(tmp_path):
    said = message(Renderer(settings(templates_dir=tmp_path / "gone")))

    assert said.startswith("TEMPLATES_DIR: ")


@pytest.mark.parametrize("trap", ["${env.HOME}", "#{T(java.lang.Runtime)}"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("globus_client_secret", "google-batch/application.properties.j2, line 16"),
        (
            "key_handler_password",
            "google-batch/application-crypt4gh-secret-manager.properties.j2, line 4",
        ),
    ],
)
def test_fault_45_a_secret_spring_would_expand_is_refused_unquoted(name, place, trap):
    said = message(Renderer(settings(**{name: f"{SECRETS[name]}{trap}"})))

    assert said.startswith(place)
    assert SECRETS[name] not in said
    assert trap not in said
