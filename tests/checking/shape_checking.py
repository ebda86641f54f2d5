"""The checker that jaxtyping applies to all four packages in every test run (named in pyproject.toml).

As plain beartype, but an int may stand where a float is asked for, as Python's typing rules say.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
