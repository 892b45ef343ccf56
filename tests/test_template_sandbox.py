"""Templates are configuration: nothing in one reaches Python, a secret it needs not, or no end."""

import base64
import json
import time

import pytest
from rendering_samples import (
    SECRETS,
    WHOSE,
    every_manifest,
    names,
    readable,
    request,
    settings,
)

from pyvatti.errors import ConfigurationError
from pyvatti.manifests import Renderer
from pyvatti.manifests.contexts import is_secret, plain_settings
from pyvatti.manifests.environment import MAX_STEPS
from pyvatti.settings import PACKAGED_TEMPLATES, Settings

SCM = "google-batch/scm.j2"
PROPERTIES = "google-batch/application.properties.j2"
PLACES = {  # a template of each context, and what renders it
    SCM: lambda renderer: renderer.driver_secret(request(), names(), WHOSE),
    PROPERTIES: lambda renderer: renderer.transfer_secret(names(), WHOSE),
    "secret.yaml.j2": lambda renderer: renderer.driver_secret(request(), names(), WHOSE),
    "transfer-secret.yaml.j2": lambda renderer: renderer.transfer_secret(names(), WHOSE),
}
# Each would run a program, read a file, walk out of its values, or never end
ATTACKS = {
    "class of text": "''.__class__.__mro__[1].__subclasses__()",
    "class of settings": "settings.__class__.__init__.__globals__",
    "class of names": "names.__class__",
    "item for attribute": "settings['__class__']",
    "attr filter": "settings|attr('__class__')",
    "attr of attr": "(''|attr('__cla' ~ 'ss__'))|attr('mro')",
    "map over attributes": "[settings]|map(attribute='__class__')|first",
    "map of attr": "[settings]|map('attr', '__class__')|first",
    "sort by attributes": "[settings, names]|sort(attribute='__class__')",
    "format": "'{0.__class__}'.format(settings)",
    "format of items": "'{0[x].__class__}'.format({'x': names})",
    "format_map": "'{a.__class__}'.format_map({'a': settings})",
    "format found by attr": "('{0.__class__.__init__}'|attr('format'))(settings)",
    "format as map": "['{0.__class__}']|map('attr', 'format')|first()(settings)",
    "method of a mapping": "settings.get.__self__",
    "function's globals": "range.__globals__",
    "dict": "dict.__mro__",
    "namespace": "namespace.__init__.__globals__",
    "cycler": "cycler.__init__.__globals__.os.popen('id').read()",
    "joiner": "joiner.__init__.__globals__.os.popen('id').read()",
    "lipsum": "lipsum.__globals__['os'].popen('id').read()",
    "lipsum without end": "lipsum(n=10**9)",
    "self": "self.__init__.__globals__",
    "self's context": "self._TemplateReference__context",
    "import": "__import__('os').system('id')",
    "builtins": "__builtins__",
    "environment": "environment",
    "undefined": "(nothing|default('')).__class__",
    "exception": "settings.tower_token.get_secret_value()",
    "settings' methods": "settings.model_dump()",
    "the request's methods": "request.model_dump()",
    "methods within the request": "request.globus_details.files[0].model_copy()",
    "names' methods": "names.__replace__(base='x')",
    "changed settings": "settings.update({'gcp_project': 'x'})",
    "changed names": "names.pop('base')",
    "changed list": "[1].append(2)",
    "range": "range(10**9)|list",
    "range that is counted only": "range(10**9)|length",
}
STATEMENTS = {
    "macro's globals": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "loop's insides": "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "set attribute": "{% set settings.gcp_project = 'x' %}",
    "include above": "{% include '../../../../../../etc/passwd' %}",
    "include absolute": "{% include '/etc/passwd' %}",
    "include found at run time": "{% include ['/etc', 'passwd']|join('/') %}",
    "import of a file": "{% import '/etc/passwd' as x %}",
    "from a file": "{% from '../settings.py' import x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "range": "{% for x in range(10**9) %}{% endfor %}",
    "loops in loops": "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
    "loops over text": "{% for a in 'x' * 999 %}{% for b in 'y' * 999 %}{% endfor %}{% endfor %}",
    "loops of filters": (
        "{% for a in range(9999) %}{% for b in range(9999)|map('string') %}{% endfor %}{% endfor %}"
    ),
    "macro for ever": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro that doubles": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}"
    ),
    "recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "include of itself": "{% include 'google-batch/scm.j2' %}",
}


def overlay(folder, name, text, **changes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Renderer(settings(templates_dir=folder, **changes))


def refusal(make):
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


def hidden(text, also=()):
    """Insist that a text holds no secret value, however an error may write it."""
    for value in (*SECRETS.values(), *also):
        for form in (value, value.upper(), value[::-1], base64.b64encode(value.encode()).decode()):
            assert form not in text, text


@pytest.mark.parametrize("place", [SCM, PROPERTIES])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_expression_that_leaves_its_values_is_refused(tmp_path, attack, place):
    renderer = overlay(tmp_path, place, f"{{{{ {attack} }}}}")

    hidden(refusal(lambda: PLACES[place](renderer)))


@pytest.mark.parametrize("attack", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_a_statement_that_leaves_the_folder_or_never_ends_is_refused(tmp_path, attack):
    renderer = overlay(tmp_path, SCM, attack)
    began = time.process_time()

    hidden(refusal(lambda: PLACES[SCM](renderer)))

    assert time.process_time() - began < 10


def test_what_a_rendering_may_do_does_not_count_towards_the_next(tmp_path):
    steps = MAX_STEPS // 4
    renderer = overlay(tmp_path, SCM, f"{{% for x in range({steps}) %}}{{% endfor %}}")

    for _ in range(5):
        PLACES[SCM](renderer)


PRINTS = {
    "job.yaml.j2": ("kind: Job", "kind: {{ [settings, names, annotations] | string | yaml }}"),
    SCM: ("providers", "{{ settings }} {{ settings | pprint }} {{ [names, request, settings] }}"),
    PROPERTIES: ("=none", "={{ settings }} {{ settings | pprint }} {{ [settings] }}"),
    "record.yaml.j2": ("kind: ConfigMap", "kind: {{ settings | string | yaml }}"),
}


@pytest.mark.parametrize("place", PRINTS)
def test_a_template_that_prints_its_settings_prints_no_secret(tmp_path, place):
    old, new = PRINTS[place]
    text = (PACKAGED_TEMPLATES / place).read_text()
    assert old in text
    renderer = overlay(tmp_path, place, text.replace(old, new))

    changed, packaged = (
        json.dumps(readable(every_manifest(made, request())))
        for made in (renderer, Renderer(settings()))
    )

    assert "stand-in-project" in changed
    assert {value: changed.count(value) for value in SECRETS.values()} == {
        value: packaged.count(value) for value in SECRETS.values()
    }


def test_settings_are_all_there_but_the_secret_ones():
    shown = plain_settings(settings())
    secret = {
        name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }

    assert {*SECRETS, "api_tokens", "notify_signing_secret"} == secret
    assert shown.keys() == Settings.model_fields.keys() - secret | {"nextflow"}
    pod = shown.pop("driver_pod")
    assert json.loads(json.dumps(pod)) == pod
    assert {type(value) for value in shown.values()} <= {str, int, float, bool}
    assert is_secret(Settings.model_fields["api_tokens"].annotation)
    assert shown["timeout_seconds"] == 3600.0


@pytest.mark.parametrize("place", ["secret.yaml.j2", "transfer-secret.yaml.j2"])
def test_the_template_of_a_secret_sees_no_content(tmp_path, place):
    text = (PACKAGED_TEMPLATES / place).read_text()
    spy = text.replace('"type": "Opaque"', '"type": {{ files | string | yaml }}')

    made = PLACES[place](overlay(tmp_path, place, spy))

    packaged = PLACES[place](Renderer(settings()))
    hidden(made["type"], also=["user@example.org", "hapnest", "intp00000000513"])
    assert made["data"] == packaged["data"]


def test_a_secret_may_be_written_as_plain_text_too(tmp_path):
    text = (PACKAGED_TEMPLATES / "secret.yaml.j2").read_text()
    plain = text.replace('"data"', '"stringData"').replace("| base64 ", "")

    made = PLACES["secret.yaml.j2"](overlay(tmp_path, "secret.yaml.j2", plain))

    assert made["stringData"]["tower-token"] == SECRETS["tower_token"]


@pytest.mark.parametrize(
    "content", ["content | upper | base64 | yaml", "'' | yaml", "(content ~ '!') | base64 | yaml"]
)
def test_a_secret_whose_files_are_not_whole_is_refused(tmp_path, content):
    text = (PACKAGED_TEMPLATES / "secret.yaml.j2").read_text()
    renderer = overlay(tmp_path, "secret.yaml.j2", text.replace("content | base64 | yaml", content))

    assert refusal(renderer.check) == "secret.yaml.j2: does not give the file scm, whole, in data"


TELLING = {
    "key": "{{ {}[VALUE] }}",
    "attribute": "{{ settings[VALUE] }}",
    "its words": "{{ VALUE | refuse }}",
    "changed words": "{{ VALUE | upper | refuse }}",
    "reversed words": "{{ VALUE[::-1] | refuse }}",
    "filter": "{{ VALUE | int(none) + 'x' }}{{ VALUE.x }}",
    "include": "{% include VALUE %}",
    "number": "{{ '%d' | format(VALUE) }}",
    "call": "{{ VALUE() }}",
}


@pytest.mark.parametrize("telling", TELLING.values(), ids=TELLING.keys())
@pytest.mark.parametrize(
    ("place", "variable", "private"),
    [
        (PROPERTIES, "credentials.globus_client_secret", SECRETS["globus_client_secret"]),
        (PROPERTIES, "credentials.key_handler_password", SECRETS["key_handler_password"]),
        (SCM, "request.globus_details.files[0].filename", "ours-of-ward-7.pgen.c4gh"),
    ],
)
def test_an_error_at_run_time_names_the_line_and_no_private_value(
    tmp_path, telling, place, variable, private
):
    renderer = overlay(tmp_path, place, "\n" + telling.replace("VALUE", variable))
    asked = request()
    asked.globus_details.files[0].__dict__["filename"] = "ours-of-ward-7.pgen.c4gh"

    with pytest.raises(ConfigurationError) as caught:
        every_manifest(renderer, asked)

    hidden(str(caught.value), also=[private])
    assert str(caught.value).startswith(f"{place}, line 2: ")
    assert caught.value.__suppress_context__


def test_at_start_up_a_mistake_is_said_in_full_but_for_the_value(tmp_path):
    renderer = overlay(
        tmp_path, PROPERTIES, "{{ ('bad ' ~ credentials.key_handler_token) | refuse }}"
    )

    assert refusal(renderer.check) == "bad sample"
