"""Tokenizers of checkpoints: read with special tokens and chat template, and written back; no code is run."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MASKS = ("<|mask|>", "<|mdm_mask|>", "<[MASK]>", "[MASK]", "<mask>")
"""What published tokenizers call the mask token where they do not declare one."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, or None where it has none.

    Reads tokenizer.json, or vocab.json and merges.txt (Dream); special tokens and chat template come from
    tokenizer_config.json, special_tokens_map.json and chat_template.jinja.

    Raises:
        ValueError: naming the folder, where a file cannot be read.
    """
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        return None
    import transformers

    kind: Any = getattr(transformers, "PreTrainedTokenizerFast" if whole else "Qwen2TokenizerFast")
    settings = {} if (folder / "tokenizer_config.json").is_file() else {"clean_up_tokenization_spaces": False}
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **settings)
    except Exception as error:  # the library raises nothing more precise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        path = folder / ("tokenizer.json" if whole else "vocab.json")
        raise ValueError(
            f"the tokenizer {path} cannot be read, or a file beside it ({reason[0]}); "
            "copy or download it again"
        ) from error


def mask_id_of(tokenizer: Any) -> int | None:
    """The id of the mask token that a tokenizer declares or has under a usual name, or None."""
    if tokenizer is None:
        return None
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    vocabulary = tokenizer.get_vocab()
    return next((vocabulary[name] for name in MASKS if name in vocabulary), None)


def ids_of(description: dict[str, Any], tokenizer: Any) -> dict[str, int | None]:
    """`eos_token_id` and `pad_token_id` by config.json, else by the tokenizer; padding is by default the end.

    Of several ends, as chat models have them, it is the tokenizer's.
    """
    eos_id, pad_id = description.get("eos_token_id"), description.get("pad_token_id")
    ends = eos_id if isinstance(eos_id, list) else [eos_id]
    own = None if tokenizer is None else tokenizer.eos_token_id
    eos_id = own if own in ends or ends in ([], [None]) else ends[0]
    if pad_id == -1:  # how early Llamas say that there is none
        pad_id = None
    if pad_id is None and tokenizer is not None:
        pad_id = tokenizer.pad_token_id
    return {"eos_token_id": eos_id, "pad_token_id": eos_id if pad_id is None else pad_id}


def add_mask(tokenizer: Any, token: str, taken: Sequence[Any]) -> int:
    """Make `token` the mask token, new or one that is reserved, and give its id.

    Args:
        tokenizer: changed in place.
        token: its text.
        taken: ids that mean something else already.

    Raises:
        ValueError: for a token with a meaning, or one that ordinary text has.
    """
    roles = [getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "unk", "sep", "cls")]
    added = {str(each): number for number, each in tokenizer.added_tokens_decoder.items()}
    chat = str(tokenizer.chat_template)
    free = [name for name, number in added.items() if number not in (*roles, *taken) and name not in chat]
    advice = f"use a new one, such as {MASKS[0]}" + "".join(f", or {name}" for name in free[-3:])
    if token in added and token not in free:
        raise ValueError(f"mask token {token!r} has a meaning already; {advice}")
    bracketed = len(token) > 2 and token[0] + token[-1] in ("<>", "[]")
    if token not in added and (token in tokenizer.get_vocab() or not bracketed):
        raise ValueError(f"mask token {token!r} is ordinary text, which would be read as masks; {advice}")
    tokenizer.add_special_tokens({"mask_token": token})
    return int(tokenizer.mask_token_id)


def declare(tokenizer: Any, *, eos_id: int, pad_id: int, mask_id: int) -> None:
    """Make the tokenizer's special tokens those of the net.

    Some releases of transformers read another end of text out of a GGUF file than the file says; what a net
    is trained to end with and what decoding looks for must be one token.
    """
    for name, number in (("eos_token", eos_id), ("pad_token", pad_id), ("mask_token", mask_id)):
        text = tokenizer.convert_ids_to_tokens(number)
        if text is not None and getattr(tokenizer, name) != text:
            setattr(tokenizer, name, text)


def tokenizer_texts(tokenizer: Any) -> dict[str, str]:
    """File name -> contents, as `load_tokenizer` and transformers read them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = [path for path in sorted(Path(folder).iterdir()) if path.is_file()]
        texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    settings = json.loads(texts["tokenizer_config.json"])
    for key in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(key, None)
    # The name that every version of transformers knows.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    texts["tokenizer_config.json"] = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    return texts
