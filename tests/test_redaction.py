"""Values come out of foreign text in every form, mixed, and in any surroundings."""

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvatti.redaction import HEAD, LEAST, MARK, Redactor, Stream

E_MAIL = "jane.doe@hospital.example"
FOLDER = "jane.doe@hospital.example/Colon cancer/2026"
SECRET_ID = "81D5C400-21B4-4E88-8208-8D64C9920283"
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
    # a character that an escape may begin with is read as one, so only other forms keep it apart
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
    import re
    from urllib.parse import unquote, unquote_plus

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
def test_no_value_is_left_in_any_form_whatever_stands_around_it(case):
    value, text = case

    cleaned = Redactor([value])(text)

    assert MARK in cleaned
    assert not remains(value, cleaned)
