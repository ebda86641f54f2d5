"""Texts that act when an exporter forgets that a token is data, and how each format is looked at for what got out.

``HOSTILE`` goes through every exporter (``tests/laws/test_hostile_exports.py``); each entry says ``PWN`` where it
could, so that what ran, or what became a link, names itself.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

__all__ = ["HOSTILE", "SILENT", "alive", "dot_strings", "nodes_of_html", "terminal_orders"]

HOSTILE = (
    "</script><script>window.PWN=1</script>",
    "<script>window.PWN=2</script>",
    "<!--<script>window.PWN=3</script>",
    '<img src=x onerror="window.PWN=4">',
    "<svg/onload=window.PWN=5>",
    "</textarea></title></style></iframe><script>window.PWN=6</script>",
    '"><script>window.PWN=7</script>',
    "' onmouseover='window.PWN=8' x='",
    "`${window.PWN=9}`",
    "{{7*7}}{% raw %}{{ PWN }}",
    "&lt;script&gt;window.PWN=10&lt;/script&gt;",
    "[PWN](javascript:window.PWN=11)",
    "![PWN](https://example.invalid/PWN.png)",
    "<a href='javascript:window.PWN=12'>PWN</a>",
    "<A HREF='https://example.invalid/PWN'>PWN</A>",
    "https://example.invalid/PWN www.example.invalid/PWN <https://example.invalid/PWN>",
    "| PWN | a cell | of | its own |",
    "first\n# PWN a heading\n\n- PWN a list\n\n    PWN code\n",
    "one\rtwo\r\nthree",
    "```\nPWN\n```",
    "nul\x00nul",
    "\x1b[2J\x1b]0;PWN\x07\x1b]8;;https://example.invalid/PWN\x07link\x1b]8;;\x07\x9b31m",
    "right\u202egnp.exe\u202c \u2067PWN\u2069",
    "zero\u200bwidth\u200d\u2060\ufeff",
    "line\u2028separator\u2029paragraph\x85next",
    '" -> "PWN" [URL="javascript:PWN"]; "',
    "\\N \\G \\l \\",
    'tail\\" PWN',
    "xml \x01\x08\x0b\x0c\ufffe\uffff ]]> <!DOCTYPE PWN [<!ENTITY a 'b'>]> &a;",
    "=cmd|' /C PWN'!A0",
    "+1+PWN()",
    "-1+PWN()",
    "@SUM(PWN)",
    "\t=PWN()",
    "\uff1dPWN()",
    "lone \ud800 surrogate \udfff",
    "%{customdata} %{x:.3f} <extra>PWN</extra>",
    "long " + "PWN" * 3000,
    "",
    " ",
)
"""Every kind of text that some format would obey."""

SILENT = "".join(HOSTILE[:13]).replace("\n", " ")
"""Many at once in one text, for places that take only one."""

_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def terminal_orders(text: str) -> list[str]:
    """Characters that a terminal obeys, or that turn or hide what follows; line ends and tabs aside."""
    return _ORDERS.findall(text)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def nodes_of_html(text: str) -> tuple[list[tuple[str, dict[str, str | None]]], str]:
    """The start tags of a piece of HTML with their attributes, and its text."""
    parser = _Tags()
    parser.feed(text)
    parser.close()
    return parser.tags, "".join(parser.text)


def alive(html: str, *, scripts: int = 0) -> list[str]:
    """What in ``html`` could act: script elements above ``scripts``, handlers, images, links out."""
    tags, _ = nodes_of_html(html)
    found = [
        tag for tag, _ in tags if tag in ("img", "svg", "object", "embed", "base", "form", "link", "style")
    ]
    found += ["script"] * max(0, sum(tag == "script" for tag, _ in tags) - scripts)
    for tag, held in tags:
        found += [f"{tag} {name}" for name in held if name.startswith("on")]
        target = held.get("href") or held.get("src") or ""
        found += [f"{tag} {target}"] if target and not target.startswith(("#", "data:,")) else []
    return found


_DOT = re.compile(
    r'\s*(?:("(?:\\.|[^"\\])*")|(->)|([{}\[\];=,])|([A-Za-z_][A-Za-z0-9_]*|-?[0-9.]+(?:e[-+]?\d+)?))'
)


def dot_strings(text: str) -> list[str]:
    """The quoted strings of a DOT file as they read; an AssertionError where it is none."""
    at, strings, depth = 0, [], 0
    while text[at:].strip():
        match = _DOT.match(text, at)
        assert match, f"no token of DOT at {text[at : at + 60]!r}"
        at = match.end()
        if match[1]:
            assert "\n" not in match[1]
            # an escape other than these two would be replaced when the graph is drawn
            assert not re.search(r'\\(?!["\\])', match[1].replace("\\\\", "")), match[1]
            strings.append(re.sub(r'\\(["\\])', r"\1", match[1][1:-1]).replace("&amp;", "&"))
        depth += {"{": 1, "}": -1}.get(match[3] or "", 0)
        assert depth >= 0
    assert depth == 0
    return strings
