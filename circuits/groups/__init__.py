"""Group-operation networks taken apart: which irreps they compute with, where, how purely, and whether that is all.

`analysis.py` holds :func:`reverse_engineer`; `subject.py` says what can be read, `tally.py` is the one pass over all
pairs, every other room one measure.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "GroupReading": "reading",
        "Progress": "dynamics",
        "Triples": "triples",
        "coset_reading": "cosets",
        "live_table": "survey",
        "network_triples": "triples",
        "progress_of": "dynamics",
        "reverse_engineer": "analysis",
        "subject_of": "subject",
        "universality": "survey",
        "word_triples": "triples",
    },
)
