"""Reports: findings with their figures and provenance as one self-contained HTML page and a JSON twin.

`content.py` turns results into a plain JSON-able report; `page.py` renders any such report, also one read back.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "SCHEMA": "content",
        "outcome": "content",
        "read": "page",
        "render": "page",
        "report": "content",
        "write": "page",
    },
)
