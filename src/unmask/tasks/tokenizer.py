"""The tokenizer of the testbed: whole words and operators of its tasks, single characters for the rest."""

from typing import Any

from unmask.tasks.chain import NAMES
from unmask.tasks.code import FILTERS, ITEM_NAMES, LIST_NAMES, MAPS, RETURNS

EOS, MASK = "<|eos|>", "<|mask|>"

_CHAIN = (
    *NAMES,
    " has ",
    " has twice as many as ",
    " has as many as ",
    " and ",
    " together",
    ". ",
    " more than ",
    " fewer than ",
    "How many has ",
    "?\n",
    "answer ",
)
_CODE = (
    "Write f: ",
    ", ",
    ".\n",
    "def f(xs):\n",
    "xs",
    "    ",
    "        ",
    "            ",
    "                ",
    "                    ",
    " = ",
    "[]",
    "for ",
    " in ",
    "if ",
    " for ",
    " if ",
    ":\n",
    "not ",
    ".append(",
    ")\n",
    "return ",
    *(f" {sign} " for sign in ("%", "==", "!=", ">", "<", "+", "-", "*", "**", "+=")),
    *(f"{name}(" for name in ("sum", "len", "max", "min", "list", "sorted")),
    ", default=0)",
    "[",
    "]\n",
)


def pieces() -> list[str]:
    """The multi-character tokens, in the order of their ids."""
    words = [
        part
        for group in (FILTERS, MAPS, RETURNS)
        for entry in group.values()
        for part in entry[0].split("{k}")
    ]
    return list(dict.fromkeys(w for w in (*_CHAIN, *_CODE, *words, *ITEM_NAMES, *LIST_NAMES) if len(w) > 1))


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast`; text in ASCII survives encoding and decoding unchanged.

    Words cost less than the characters they are made of, so the shortest segmentation wins.
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    singles = ["\n", *map(chr, range(32, 127))]
    words = pieces()
    scored = [(EOS, 0.0), (MASK, 0.0)]
    scored += [(text, -10.0) for text in singles]
    scored += [(text, -10.0 + 0.01 * len(text)) for text in words]
    backend = Tokenizer(Unigram(scored, unk_id=None, byte_fallback=False))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([EOS, MASK])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
    )
