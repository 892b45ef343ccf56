"""PURE: undoes escapes in UTF-8, layer by layer, and says where each byte stood before.

Percent-encoding and the escapes of JSON, Java and Python strings alike, for nobody knows through
which of them a foreign text went. What is looked for in the layers is `redaction`'s business.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator

LAYERS = 4  # escapes around each other that are undone

Spans = list[tuple[int, int]]

# possessive, so that a long run of backslashes is read once
_ESCAPE = re.compile(
    rb"%([0-9A-Fa-f]{2})"
    rb"|\\++(?:u++([Dd][89ABab][0-9A-Fa-f]{2}\\++u++[Dd][C-Fc-f][0-9A-Fa-f]{2})"
    rb"|u++([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))?"
)


class Map:
    """Where each byte of a layer stands in the layer around it; made when it is first asked."""

    def __init__(self, outer: bytes) -> None:
        self.outer = outer
        self._begins, self._ends = array("q"), array("q")  # of escapes, outside
        self._first, self._last = array("q"), array("q")  # of what they mean, inside

    def begin(self, place: int) -> int:
        """Give where the byte at a place begins outside."""
        at = self._escape(place)
        if at < 0:
            return place
        over = place - self._last[at]
        return self._ends[at] + over if over >= 0 else self._begins[at]

    def end(self, place: int) -> int:
        """Give where the byte before a place ends outside."""
        at = self._escape(place - 1)
        return place if at < 0 else self._ends[at] + max(place - self._last[at], 0)

    def _escape(self, place: int) -> int:
        """Find the last escape that means something at or before a place."""
        if not self._begins:
            longer = 0
            for match in _ESCAPE.finditer(self.outer):
                begin, end = match.span()
                self._begins.append(begin)
                self._ends.append(end)
                self._first.append(begin - longer)
                longer += end - begin - len(_MEANINGS[match.group()])
                self._last.append(end - longer)
        return bisect_right(self._first, place) - 1


def to_bytes(text: str) -> bytes:
    """Give UTF-8, of lone surrogates too."""
    return text.encode(errors="surrogatepass")


def layers_of(text: bytes, maps: list[Map]) -> Iterator[bytes]:
    """Give what is inside each layer of escapes; the last of `maps` then says where it stands."""
    while len(maps) < LAYERS and (b"%" in text or b"\\" in text):
        outer = text
        text = _ESCAPE.sub(lambda match: _MEANINGS[match.group()], outer)
        if text == outer:
            return
        maps.append(Map(outer))
        yield text


class _Meanings(dict[bytes, bytes]):
    """What each escape means; a backslash before anything else means nothing."""

    MOST, LONGEST = 2**15, 16  # escapes kept, and bytes of one

    def __missing__(self, escape: bytes) -> bytes:
        match = _ESCAPE.fullmatch(escape)
        meaning = _meaning(match) if match and match.lastindex else b""
        if len(escape) <= self.LONGEST and len(self) < self.MOST:
            self[escape] = meaning
        return meaning


def _meaning(escape: re.Match[bytes]) -> bytes:
    group = escape.lastindex or 0
    digits = escape[group]
    if group in (1, 4):
        return bytes((int(digits, 16),))
    code = int(digits[-4:], 16)
    if group == 2:  # a pair of surrogates
        code = 0x10000 + ((int(digits[:4], 16) - 0xD800) << 10) + code - 0xDC00
    return to_bytes(chr(code))


_MEANINGS = _Meanings()


def outwards(spans: Spans, maps: list[Map]) -> Spans:
    """Give where spans of the innermost layer stand in the outermost."""
    for places in reversed(maps):
        spans = [(places.begin(first), places.end(last)) for first, last in spans]
    return spans
