"""A tokenizer for tests: words with their space, two digits at a time; anything it is told to cut, it cuts."""

from __future__ import annotations

import re


class Pieces:
    """The call protocol of a tokenizer and nothing more. Ids are given out in the order of first sight."""

    bos_token_id, pad_token_id, unk_token_id = 0, 1, None
    all_special_ids = (0, 1)

    def __init__(
        self, *, cut: tuple[str, ...] = (), pattern: str = r" ?\d\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s"
    ) -> None:
        """``cut``: words that become single characters. ``pattern``: what is one piece."""
        self.cut = cut
        self.pattern = re.compile(pattern)
        self.strings: list[str] = ["<bos>", "<pad>"]
        self.known: dict[str, int] = {}

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[self._id(piece) for piece in self._pieces(text)] for text in texts]}

    def _pieces(self, text: str) -> list[str]:
        whole = self.pattern.findall(text)
        return [part for piece in whole for part in (piece if piece.strip() in self.cut else [piece])]

    def _id(self, piece: str) -> int:
        if piece not in self.known:
            self.known[piece] = len(self.strings)
            self.strings.append(piece)
        return self.known[piece]

    def __len__(self) -> int:
        return 4000

    def decode(self, ids: list[int]) -> str:
        return "".join(self.convert_ids_to_tokens(i) for i in ids)

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.strings[token] if token < len(self.strings) else f"#{token}"
