"""The tokenizer of the testbed gives every text back."""

import string

from hypothesis import given
from hypothesis import strategies as st

from unmask.tasks.chain import NAMES
from unmask.tasks.tokenizer import EOS, MASK, build_tokenizer, pieces

TOKENIZER = build_tokenizer()
PRINTABLE = st.text(alphabet=[*map(chr, range(32, 127)), "\n"])


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return ids


@given(PRINTABLE)
def test_ascii_text_survives(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@given(st.lists(st.sampled_from(pieces())).map("".join))
def test_words_run_together_survive(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@given(st.text(alphabet=string.digits, min_size=1, max_size=12))
def test_every_digit_is_a_token(digits: str) -> None:
    assert TOKENIZER.convert_ids_to_tokens(encode(digits)) == list(digits)


def test_words_of_the_tasks_are_one_token() -> None:
    assert all(len(encode(piece)) == 1 for piece in pieces())
    assert len(encode("".join(NAMES))) == len(NAMES)


def test_special_tokens_are_themselves() -> None:
    assert TOKENIZER.eos_token == TOKENIZER.pad_token == EOS
    assert TOKENIZER.mask_token == MASK
    assert encode(EOS) == [TOKENIZER.eos_token_id]
    assert encode(MASK) == [TOKENIZER.mask_token_id]


def test_the_bundled_base_reads_with_this_tokenizer() -> None:
    from unmask.checkpoint import BUNDLED

    stored = (BUNDLED / "base" / "tokenizer.json").read_text(encoding="utf-8")
    assert TOKENIZER.backend_tokenizer.to_str() == stored
