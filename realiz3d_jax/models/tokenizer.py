"""T5's tokenizer: a caption becomes the ids of its sentence pieces, then </s>.

A checkpoint's folder has it as ``tokenizer.json`` (of the library ``tokenizers``), as ``spiece.model`` (of ``sentencepiece``),
or both. A ``spiece.model`` lacks the markup: the hundred <extra_id_n> follow its pieces, counted down, and markup in a caption
is cut out before the pieces are found. The two libraries agree except on U+0085, white space in only one of them, and on
combining marks behind a space or behind a character that NFKC takes apart.

Source: Raffel et al. (arXiv 1910.10683), section 2.2; Kudo and Richardson (arXiv 1808.06226); transformers ``T5Tokenizer``,
whose numbers are reproduced.
"""

import os
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import sentencepiece
import tokenizers

from realiz3d_jax.errors import UserError

PAD, END, UNKNOWN = 0, 1, 2
"""The ids of <pad>, </s> and <unk>, the same in every T5."""

_Pieces = Callable[[str], list[int]]

_MARKUP = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
_EXTRA_IDS = 100
_SPLIT = re.compile(r"(<pad>|</s>|<unk>|<extra_id_(?:[1-9]?[0-9])>)")


class Tokenizer:
    """The tokenizer of a checkpoint.

    Attributes:
      folder: where it was read from.
      size: tokens are in [0, size).
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Reads ``tokenizer.json``, or ``spiece.model`` where there is none.

        Raises:
          UserError: neither file exists, or it is damaged or not T5's.
        """
        self.folder = pathlib.Path(folder)
        for name, read in _READERS.items():
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                self.size, self._pieces = read(path)
            except Exception as error:  # tokenizers raises nothing narrower
                raise UserError(
                    f"{self.folder}: {name} cannot be read ({error}); expected the tokenizer of a T5. Fetch it again."
                ) from error
            return
        raise UserError(
            f"{self.folder}: found no tokenizer; expected {' or '.join(_READERS)}. "
            "Name the checkpoint's folder 'tokenizer', or fetch it with the checkpoint."
        )

    def check_fits(self, vocabulary: int) -> None:
        """Raises UserError if the tokenizer has more tokens than ``vocabulary``, a text encoder's number of embeddings."""
        if self.size > vocabulary:
            raise UserError(
                f"{self.folder}: has {self.size} tokens ({_EXTRA_IDS} extra ids among them), expected at most {vocabulary}, "
                "for which the text encoder has embeddings. Use the tokenizer of the same checkpoint."
            )

    def encode(self, captions: Sequence[str], max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of captions and their mask.

        Args:
          captions: n captions, taken as they are.
          max_tokens: T; of a longer caption the first T - 1 tokens stay, and </s>.

        Returns:
          int32[n, T], ``PAD`` behind </s>, and bool[n, T], True up to </s>. "" is </s> alone.
        """
        tokens = np.full((len(captions), max_tokens), PAD, np.int32)
        mask = np.zeros((len(captions), max_tokens), bool)
        for row, caption in enumerate(captions):
            found = [*self._pieces(caption)[: max_tokens - 1], END]
            tokens[row, : len(found)] = found
            mask[row, : len(found)] = True
        return tokens, mask


def _tokenizer_json(path: pathlib.Path) -> tuple[int, _Pieces]:
    library = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    library.no_truncation()
    library.no_padding()
    _check({name: library.token_to_id(name) for name in _MARKUP})
    return library.get_vocab_size(), lambda caption: library.encode(caption, add_special_tokens=False).ids


def _sentencepiece_model(path: pathlib.Path) -> tuple[int, _Pieces]:
    library = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    _check({"<pad>": library.pad_id(), "</s>": library.eos_id(), "<unk>": library.unk_id()})
    size = library.get_piece_size() + _EXTRA_IDS
    markup = {**_MARKUP, **{f"<extra_id_{number}>": size - 1 - number for number in range(_EXTRA_IDS)}}

    def pieces(caption: str) -> list[int]:
        tokens: list[int] = []
        for part in _SPLIT.split(caption):
            tokens += [markup[part]] if part in markup else library.encode(part)
        return tokens

    return size, pieces


def _check(found: dict[str, int | None]) -> None:
    if found != _MARKUP:
        raise ValueError(f"it is of another model: found {found}, expected {_MARKUP}")


_READERS = {"tokenizer.json": _tokenizer_json, "spiece.model": _sentencepiece_model}
