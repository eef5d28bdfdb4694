"""Captions become the numbers that transformers' T5 tokenizer gives them, from either file of a checkpoint."""

import io
import pathlib
import shutil

import numpy as np
import pytest
import sentencepiece
from transformers import T5Tokenizer

from realiz3d_jax.errors import UserError
from realiz3d_jax.models.tokenizer import END, PAD, Tokenizer

CORPUS = (
    "a red cone stands on a blue cube and a small green torus lies behind the large yellow sphere",
    "a photograph of an old wooden chair with carved legs, 3/4 view, studio light; it's well-worn!",
    'the café\'s façade: naïve déjà vu, größe "quoted" (brackets), 100% of 1,234.5 tokens',
    "two tall white vases under a round mirror beside the open window of an empty room at night",
    "an astronaut rides a horse through the desert while clouds of dust rise into the evening sky",
) * 3

CAPTIONS = (
    "a red cone on a blue cube",
    "A Red CONE,on   a blue  cube! ",
    "a red\ncone\n\n on\ta cube\r\n",
    "",
    "   ",
    "café, cafe\u0301, ﬁne, ½, ＣＯＮＥ, a\u00a0b, a\u3000b, a\u200bb, soft\u00adhyphen",
    "日本語 の cone, नमस्ते, 한글, 👨‍👩‍👧 and 😀😀",
    "▁a ▁▁ cone",
    "<extra_id_0>",
    "a <extra_id_0> cone<extra_id_99>s <extra_id_100> <extra_id_05> <extra_id_",
    "</s> a <pad>b<unk> c</s>",
    "a chair " * 200,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, pathlib.Path]:
    """The same tokenizer as ``spiece.model``, as ``tokenizer.json`` that transformers wrote, and as both."""
    folders = {name: tmp_path_factory.mktemp("tokenizer") for name in ("spiece.model", "tokenizer.json", "both")}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="unigram",
        vocab_size=150,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folders["spiece.model"] / "spiece.model").write_bytes(model.getvalue())
    T5Tokenizer.from_pretrained(folders["spiece.model"]).save_pretrained(folders["tokenizer.json"])
    shutil.copy(folders["tokenizer.json"] / "tokenizer.json", folders["both"])
    (folders["both"] / "spiece.model").write_bytes(b"damaged, and never read")
    return folders


@pytest.mark.parametrize("max_tokens", [12, 120, 300])
@pytest.mark.parametrize("kind", ["spiece.model", "tokenizer.json", "both"])
def test_tokens_and_mask_are_those_of_transformers(kind: str, max_tokens: int, folders):
    reference = T5Tokenizer.from_pretrained(folders["spiece.model"])
    options = {"padding": "max_length", "truncation": True, "max_length": max_tokens, "return_tensors": "np"}
    expected = reference(list(CAPTIONS), **options)
    tokens, mask = Tokenizer(folders[kind]).encode(CAPTIONS, max_tokens)
    assert (tokens.dtype, mask.dtype, tokens.shape) == (np.int32, bool, (len(CAPTIONS), max_tokens))
    np.testing.assert_array_equal(tokens, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"].astype(bool))


def test_characters_of_all_scripts_are_those_of_transformers(folders):
    reference, tokenizer = T5Tokenizer.from_pretrained(folders["spiece.model"]), Tokenizer(folders["spiece.model"])
    skipped = {0x85, *range(0xD800, 0xE000)}  # U+0085: see the module; surrogates are no characters
    codes = {*range(0x3400), *range(0x3400, 0x20000, 37)} - skipped
    captions = [f"a{chr(code)}red {chr(code)}" for code in sorted(codes)]
    expected = reference(captions, padding="max_length", max_length=64)["input_ids"]
    np.testing.assert_array_equal(tokenizer.encode(captions, 64)[0], expected)


def test_the_last_token_is_the_end_however_long_the_caption(folders):
    tokens, mask = Tokenizer(folders["spiece.model"]).encode(["", "a", "a chair " * 50], 7)
    assert mask.sum(axis=1).tolist() == [1, 2, 7]
    assert [row[row_mask][-1] for row, row_mask in zip(tokens, mask, strict=True)] == [END] * 3
    assert (tokens[~mask] == PAD).all()


def test_a_sentencepiece_model_has_a_hundred_tokens_more_counted_down(folders):
    tokenizer = Tokenizer(folders["spiece.model"])
    assert tokenizer.size == Tokenizer(folders["tokenizer.json"]).size
    tokens, _ = tokenizer.encode(["<extra_id_0><extra_id_1><extra_id_99>"], 4)
    assert tokens.tolist() == [[tokenizer.size - 1, tokenizer.size - 2, tokenizer.size - 100, END]]


def test_a_folder_without_a_tokenizer_is_a_user_error_that_names_both_files(tmp_path):
    with pytest.raises(UserError) as caught:
        Tokenizer(tmp_path / "nowhere")
    for part in (str(tmp_path / "nowhere"), "tokenizer.json or spiece.model", "fetch it"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["empty", "pointer", "cut", "binary"])
def test_a_damaged_tokenizer_is_a_user_error_that_names_folder_and_file(name: str, damage: str, folders, tmp_path):
    whole = (folders[name] / name).read_bytes()
    contents = {
        "empty": b"",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 791656\n",
        "cut": whole[: len(whole) // 2],
        "binary": b"\xff\xfe" + whole,
    }
    (tmp_path / name).write_bytes(contents[damage])
    with pytest.raises(UserError) as caught:
        Tokenizer(tmp_path)
    for part in (str(tmp_path), f"{name} cannot be read", "expected the tokenizer of a T5. Fetch it again."):
        assert part in str(caught.value)


def test_the_tokenizer_of_another_model_is_a_user_error(folders, tmp_path):
    text = (folders["tokenizer.json"] / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace("</s>", "<|endoftext|>"))
    with pytest.raises(UserError, match=r"of another model: found .*'</s>': None"):
        Tokenizer(tmp_path)
