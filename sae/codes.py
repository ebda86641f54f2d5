"""Codes of a corpus, kept sparse and by latent: what labels, dashboards, probes and explanations read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.escaping import encodable
from interp.showing import Shown
from interp.sites import Site
from interp.tokens import Tokens
from sae.splicing import rows_at, tokens_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Codes", "codes_of_rows", "encode", "sparse_codes"]

_CELLS = 1 << 25
"""Pre-activations held at once."""
Watch = Callable[[Tensor, sp.csr_array], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Codes(Shown):
    """Every code that is not 0, sorted by latent and then by row; a row is one real token of the corpus."""

    starts: np.ndarray
    """[latent + 1] where each latent's codes begin in ``rows`` and ``values``."""
    rows: np.ndarray
    """[code] int32."""
    values: np.ndarray
    """[code] float32."""
    n: int
    """Rows, those without a code included."""
    tokens: Tokens | None = None
    """The corpus; None for codes of bare rows."""
    where: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))
    """[row, 2] text and position of each row; empty for bare rows."""

    @property
    def d_sae(self) -> int:
        """Latents."""
        return len(self.starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """[latent] rows it fires on."""
        return np.diff(self.starts)

    @property
    def density(self) -> np.ndarray:
        """[latent] share of rows it fires on."""
        return self.counts / self.n

    @property
    def l0(self) -> float:
        """Codes a row."""
        return len(self.rows) / self.n

    @property
    def strongest(self) -> np.ndarray:
        """[latent] largest |code|, 0 for a latent that never fires."""
        out = np.zeros(self.d_sae, dtype=np.float32)
        some = self.counts > 0
        if some.any():
            out[some] = np.maximum.reduceat(np.abs(self.values), self.starts[:-1][some])
        return out

    def of(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, values) of one latent.

        Raises
        ------
        InputError
            There is no such latent.
        """
        part = slice(*self.starts[self.check(latent) :][:2])
        return self.rows[part], self.values[part]

    def check(self, latent: int) -> int:
        """``latent`` if there is one of that number."""
        if not 0 <= latent < self.d_sae:
            raise InputError(f"latent {latent}: this coder has {self.d_sae}, 0-{self.d_sae - 1}")
        return int(latent)

    def pick(self, latents: Sequence[int]) -> Codes:
        """Only these latents, numbered anew in this order."""
        parts = [self.of(latent) for latent in latents]
        return Codes(
            starts=np.concatenate([[0], np.cumsum([len(rows) for rows, _ in parts])]).astype(np.int64),
            rows=np.concatenate([rows for rows, _ in parts]),
            values=np.concatenate([values for _, values in parts]),
            n=self.n,
            tokens=self.tokens,
            where=self.where,
        )

    def dense(self, latents: Sequence[int]) -> np.ndarray:
        """[row, chosen latent] float32."""
        return self.matrix[:, list(latents)].toarray()

    @property
    def matrix(self) -> sp.csc_array:
        """[row, latent], sparse; shares memory with this."""
        return sp.csc_array((self.values, self.rows, self.starts), shape=(self.n, self.d_sae))

    @property
    def ids(self) -> np.ndarray:
        """[row] the token at each row.

        Raises
        ------
        InputError
            These are codes of bare rows.
        """
        return self.corpus.ids.cpu().numpy()[self.where[:, 0], self.where[:, 1]]

    @property
    def corpus(self) -> Tokens:
        """The tokens; InputError where there are none."""
        if self.tokens is None:
            raise InputError(
                "these are codes of bare rows: make them with sae.encode(coder, model, texts, site)"
            )
        return self.tokens

    def of_texts(self, labels: Any) -> np.ndarray:
        """Labels [text, pos] as one a row.

        Raises
        ------
        InputError
            Their shape is not the corpus'.
        """
        array = np.asarray(labels)
        if self.tokens is None and array.shape == (self.n,):
            return array
        if array.shape != tuple(self.corpus.ids.shape):
            raise InputError(f"labels are {list(array.shape)}; the corpus is {list(self.corpus.ids.shape)}")
        return array[self.where[:, 0], self.where[:, 1]]

    def _facts(self) -> dict[str, Any]:
        dead = int((self.counts == 0).sum())
        return {"rows": self.n, "latents": self.d_sae, "L0": self.l0, "dead": dead, "corpus": self.tokens}

    def to_frame(self) -> pd.DataFrame:
        """A row per code that is not 0: latent, row, value, and of a corpus the text, the position, and the token."""
        import pandas as pd

        latent = np.repeat(np.arange(self.d_sae), self.counts)
        columns: dict[str, Any] = {"latent": latent, "row": self.rows, "value": self.values}
        if self.tokens is not None:
            text, pos = self.where[self.rows].T
            ids = self.tokens.ids.cpu().numpy()[text, pos]
            said = {int(i): encodable(self.tokens.show(int(i))) for i in np.unique(ids)}
            columns |= {"text": text, "pos": pos, "token": [said[int(i)] for i in ids]}
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        dead = int((self.counts == 0).sum())
        return f"Codes({self.n} rows, {self.d_sae} latents, L0 {self.l0:.3g}, {dead} dead)"


@torch.no_grad()
def sparse_codes(coder: Any, rows: Float[Tensor, "sample _"]) -> sp.csr_array:
    """``coder.encode(rows)`` as a sparse matrix; kinds that choose places a row never make the dense one."""
    parts = []
    for piece in rows.split(max(1, _CELLS // coder.d_sae)):
        rule = getattr(coder, "rule", None)
        if rule is not None and rule.columns is not None:
            pre = coder.pre(piece.to(coder.W_dec.dtype))
            column = rule.columns(coder, pre)
            value = rule.act(pre.gather(1, column)).float()
            on = value != 0
            starts = np.concatenate([[0], on.sum(1).cumsum(0).cpu().numpy()])
            column, value = column[on], value[on]
        else:
            codes = coder.encode(piece).float()
            row, column = codes.nonzero(as_tuple=True)
            starts = np.searchsorted(row.cpu().numpy(), np.arange(len(piece) + 1))
            value = codes[row, column]
        held = (value.cpu().numpy(), column.cpu().numpy().astype(np.int32), starts)
        parts.append(sp.csr_array(held, shape=(len(piece), coder.d_sae)))
    return parts[0] if len(parts) == 1 else sp.vstack(parts, format="csr")


def codes_of_rows(coder: Any, rows: Float[Tensor, "sample _"]) -> Codes:
    """Codes of bare rows, without a corpus."""
    return _gathered([sparse_codes(coder, rows_at(rows, coder, "rows"))], coder.d_sae)


def encode(
    coder: Any,
    model: Any,
    texts: Any,
    site: str | Site,
    *,
    batch_size: int = 64,
    skip_first: bool = False,
    watch: Watch | None = None,
) -> Codes:
    """Codes of every real token of some texts.

    Parameters
    ----------
    texts
        Texts (cut to the context), Tokens, or ids [text, pos].
    skip_first
        Leave out each text's first token.
    watch
        Called with the rows [row, d] and codes of each batch, to gather more in the same pass.

    Raises
    ------
    InputError
        The coder is of another width than the site.

    Notes
    -----
    Cost: one forward pass a batch (which stops behind the site) and one dense product; 8 bytes a code.
    """
    tokens = tokens_of(model, texts)
    mask = tokens.mask.cpu().clone()
    if skip_first:
        mask[torch.arange(len(mask)), mask.long().argmax(1)] = False
    parts = []
    for start in range(0, len(tokens), batch_size):
        part = tokens[start : start + batch_size]
        value = model.capture(part, site)[site]
        rows = rows_at(value, coder, site)[mask[start : start + batch_size].to(value.device)]
        parts.append(sparse_codes(coder, rows))
        if watch is not None:
            watch(rows, parts[-1])
    where = mask.nonzero().numpy().astype(np.int32)
    return _gathered(parts, coder.d_sae, tokens=tokens, where=where)


def _gathered(parts: list[sp.csr_array], d_sae: int, **corpus: Any) -> Codes:
    whole = sp.vstack(parts, format="csr") if len(parts) > 1 else parts[0]
    if whole.shape[0] == 0:
        raise InputError("there are no tokens to encode")
    by_latent = whole.tocsc()
    return Codes(
        starts=by_latent.indptr.astype(np.int64),
        rows=by_latent.indices.astype(np.int32, copy=False),
        values=by_latent.data,
        n=whole.shape[0],
        **corpus,
    )
