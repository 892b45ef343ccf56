"""Values come out of foreign text in every form, mixed, and in any surroundings."""

import base64
import json
import re
import time
from urllib.parse import quote, unquote, unquote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvatti.redaction import MARK, Redactor, Stream

E_MAIL = "jane.doe@hospital.example"
PLAIN = "abcdefxyz0129ABCXYZ._-@/ +%u\\\"'=:\n"

values = st.text(PLAIN.strip() + "ä€😀", min_size=8, max_size=40).filter(
    lambda value: len(value.strip().encode()) >= 8 and value.lower() not in MARK
)
contexts = st.text(PLAIN + "ä😀{}()&;\t", max_size=12)


def percent(char: str, *, lower: bool = False, times: int = 1) -> str:
    """Percent-encode one character, whether it needs that or not."""
    coded = "".join(f"%{byte:02X}" for byte in char.encode())
    for _ in range(times - 1):
        coded = coded.replace("%", "%25")
    return coded.lower() if lower else coded


def escape(char: str, backslashes: int = 1, letters: str = "u") -> str:
    """Escape one character as JSON and Java do."""
    units = char.encode("utf-16-be").hex()
    start = "\\" * backslashes + letters
    return "".join(start + units[at : at + 4] for at in range(0, len(units), 4))


CHARACTERS = {
    "plain": str,
    "upper case": lambda char: char.upper() if char.isascii() else char,
    "percent": percent,
    "percent, lower": lambda char: percent(char, lower=True),
    "percent twice": lambda char: percent(char, times=2),
    "percent three times": lambda char: percent(char, times=3),
    "unicode escape": escape,
    "doubled unicode escape": lambda char: escape(char, 2, "uu"),
    "hexadecimal escape": lambda char: f"\\x{ord(char):02x}" if char.isascii() else char,
    "backslash": lambda char: "\\" + char if char in "/:=#! .@\\\"'" else char,
    "plus": lambda char: "+" if char == " " else char,
}
WHOLE = {
    "as it is": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON twice": lambda text: json.dumps(json.dumps(text)),
    "percent": lambda text: quote(text, safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "base64, percent": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "base64, JSON": lambda text: base64.b64encode(text.encode()).decode().replace("/", "\\/"),
}


def spelled(value: str, forms: list[str]) -> str:
    """Write a value, each character in the next of the forms."""
    return "".join(CHARACTERS[forms[at % len(forms)]](char) for at, char in enumerate(value))


@st.composite
def hidden(draw):
    """Give (value, text with it, piece of the text that holds it)."""
    value = draw(values).strip()
    if draw(st.booleans()):
        forms = draw(st.lists(st.sampled_from(sorted(CHARACTERS)), min_size=1, max_size=5))
        if "%" in value or "\\" in value:
            forms = [form for form in forms if form != "plain"] or ["percent"]
        inside = spelled(value, forms)
    else:
        around = draw(contexts) + value + draw(contexts)
        inside = WHOLE[draw(st.sampled_from(sorted(WHOLE)))](around)
    return value, draw(contexts) + inside + draw(contexts)


def remains(value: str, text: str, depth: int = 3) -> bool:
    """Tell whether a reader who undoes encodings, any at a time, finds the value."""
    wanted, seen, fresh = value.lower(), set(), {text}
    for _ in range(depth):
        fresh = {form for item in fresh for form in readings(item)} - seen
        seen |= fresh
    return any(wanted in form.lower() for form in {text, *seen})


def readings(text: str) -> list[str]:
    found = [unquote(text), unquote_plus(text)]
    found.append(
        re.sub(r"\\+u+([0-9a-fA-F]{4})", lambda hit: chr(int(hit[1], 16)), text)
        .encode("utf-16", "surrogatepass")
        .decode("utf-16", "replace")
    )
    found.append(re.sub(r"\\x([0-9a-fA-F]{2})", lambda hit: chr(int(hit[1], 16)), text))
    found.append(re.sub(r"\\(?![ux])", "", text))
    for run in re.findall(r"[A-Za-z0-9+/_-]{6,}", text):
        for shift in range(4):
            piece = run[shift:].translate(str.maketrans("-_", "+/"))
            piece += "A" * (-len(piece) % 4)
            found.append(base64.b64decode(piece).decode(errors="replace"))
    return found


@settings(max_examples=300, deadline=None)
@given(hidden())
@example(("81d5c400-21b4", "%81d5c400-21b4"))
@example(("41secret", "%41sec%72et"))
@example(("u0041bcdef", "\\u0041bcd%65f"))
@example(("name.of.it", "C:\\name.of.it"))
@example(("00000000", "%00%25253000%25253000"))
@example(("a%2Fbcdefgh", "\\u0061%2Fbcdefgh"))
@example(("00:00000", "%00\\:00000"))
@example(("00000ä%0", "00000\\u00e4%00"))
def test_no_value_is_left_in_any_form_whatever_stands_around_it(case):
    value, text = case

    cleaned = Redactor([value])(text)

    assert MARK in cleaned
    assert not remains(value, cleaned)


@settings(max_examples=100, deadline=None)
@given(hidden(), st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_no_value_is_left_in_a_stream_however_it_is_cut_into_chunks(case, sizes):
    value, text = case
    stream, rest, passed = Stream(Redactor([value])), text.encode(), b""

    for size in sizes:
        passed += stream.feed(rest[:size])
        rest = rest[size:]
    passed += stream.feed(rest) + stream.finish()

    assert not remains(value, passed.decode(errors="replace"))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.lists(values, max_size=3))
def test_what_comes_out_is_valid_text_and_again_the_same(text, hidden_values):
    redactor = Redactor(hidden_values)

    cleaned = redactor(text)

    assert cleaned.encode().decode() == cleaned
    assert redactor(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("all is well: 100% \\o/", "all is well: 100% \\o/", id="no value"),
        pytest.param(f"cannot read {E_MAIL}!", f"cannot read {MARK}!", id="plain"),
        pytest.param(f"{E_MAIL} {E_MAIL.upper()}", f"{MARK} {MARK}", id="twice, upper case"),
        pytest.param(f"GET /{quote(E_MAIL, safe='')}/x", f"GET /{MARK}/x", id="percent"),
        pytest.param(f"{E_MAIL}{E_MAIL}", MARK, id="side by side"),
        pytest.param("jane.doe@hospital", "jane.doe@hospital", id="shown while below a value"),
        pytest.param("jane.doe@hospital.exam of", f"{MARK} of", id="begun, more than 16"),
        pytest.param("doe\ud800", "doe���", id="a lone surrogate"),
    ],
)
def test_only_the_value_goes(text, expected):
    values = [E_MAIL] if "exam" in text else ["another value"]

    assert Redactor(values)(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("l.example/x not found", f"{MARK}/x not found", id="end of a value, 9 bytes"),
        pytest.param("example/x not found", "example/x not found", id="end of a value, 7 bytes"),
        pytest.param("no: jane.doe", f"no: {MARK}", id="beginning of a value, 8 bytes"),
        pytest.param("no: jane.do", "no: jane.do", id="beginning of a value, 7 bytes"),
        pytest.param("%6C.example/x", f"{MARK}/x", id="end of a value, encoded"),
    ],
)
def test_pieces_at_the_ends_of_a_text_that_was_cut_go_too(text, expected):
    redactor = Redactor([E_MAIL])

    assert redactor(text, is_cut=True) == expected
    assert redactor(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("of jane.", f"of {MARK}.", id="a word"),
        pytest.param("in/jane_1", f"in/{MARK}_1", id="beside a line"),
        pytest.param("janet, mjane, jane2", "janet, mjane, jane2", id="inside of words"),
        pytest.param("%2Fjane%2F", f"%2F{MARK}%2F", id="between escapes"),
        pytest.param("the doe", "the doe", id="below 4 characters"),
    ],
)
def test_short_values_go_where_they_are_words(text, expected):
    assert Redactor([], ["jane", "doe"])(text) == expected


def test_a_value_that_is_part_of_the_mark_stays():
    assert (
        Redactor(["redacted", "REDACTED)", "secret-1"])("redacted secret-1") == f"redacted {MARK}"
    )


def test_each_line_of_a_value_goes():
    assert Redactor(["first line\nother line"])('"other line\\nfirst line"') == f'"{MARK}\\n{MARK}"'


MEBIBYTE = 2**20
HOSTILE = {
    "one letter": "a" * MEBIBYTE,
    "beginnings of a value": "patient_cohort_ukb_" * (MEBIBYTE // 19),
    "values": "patient_cohort_ukb_0001.vcf.gz " * (MEBIBYTE // 31),
    "percent": "%41" * (MEBIBYTE // 3),
    "percent of percent": "%2541" * (MEBIBYTE // 5),
    "much percent": "%" + "25" * (MEBIBYTE // 2),
    "backslashes": "\\" * MEBIBYTE,
    "escapes": "\\u0041" * (MEBIBYTE // 6),
    "u": "\\" + "u" * MEBIBYTE,
    "base64 of percent": base64.b64encode(b"%41" * (MEBIBYTE // 4)).decode(),
    "base64 of base64": base64.b64encode(base64.b64encode(b"%41" * (MEBIBYTE // 6))).decode(),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_mebibyte_of_hostile_text_takes_less_than_two_seconds_of_the_processor(text):
    redactor = Redactor(
        [f"patient_cohort_ukb_{number:04}.vcf.gz" for number in range(1000)]
        + ["a" * length for length in range(8, 250)]
        + ["a" * 9 + "b", "41" * 20]
    )
    redactor("")
    began = time.process_time()

    cleaned = redactor(text)

    assert time.process_time() - began < 2
    assert len(cleaned) <= len(text) + len(MARK)


def test_a_long_line_is_passed_on_in_parts_and_memory_is_bounded():
    stream, passed = Stream(Redactor([E_MAIL])), b""

    for _ in range(40):
        passed += stream.feed(b"x" * 9990 + E_MAIL.encode())
        assert len(stream._held) <= Stream.LONGEST + 10_100
    passed += stream.finish()

    assert passed == (b"x" * 9990 + MARK.encode()) * 40
