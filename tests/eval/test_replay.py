from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eval.toys import EOS, SYMBOLS, CharTokenizer, CountingDenoiser
from unmask.decode.loop import decode
from unmask.eval.replay import ReplayRow, replay_html, row_of
from unmask.planners.load import planner

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Refuses unbalanced tags and collects the token boxes, the texts and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str]]] = []
        self.boxes: list[tuple[dict[str, str], str]] = []
        self.texts: dict[str, str] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += found.items()
        if tag not in VOID:
            self.open.append((tag, found))
            if "data-step" in found:
                self.boxes.append((found, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, attrs = self.open[-1] if self.open else ("", {})
        if "data-step" in attrs:
            self.boxes[-1] = (self.boxes[-1][0], self.boxes[-1][1] + data)
        self.texts[tag] = self.texts.get(tag, "") + data


def row(pieces: list[str], **changes: object) -> ReplayRow:
    fields: dict[str, object] = {
        "title": "top_k(1)",
        "prompt": "1+1=",
        "pieces": pieces,
        "unmask_step": list(range(len(pieces))),
        "nfe": len(pieces),
        "correct": True,
        "block_length": 2,
    }
    return ReplayRow(**{**fields, **changes})  # type: ignore[arg-type]


def page_of(rows: list[ReplayRow], tmp_path: Path) -> Page:
    replay_html(rows, tmp_path / "replay.html")
    return Page((tmp_path / "replay.html").read_text(encoding="utf-8"))


@given(st.lists(st.text(max_size=6), min_size=1, max_size=5), st.text(), st.text())
def test_whatever_the_texts_the_page_stays_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], title: str, prompt: str
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    plain = page_of([row(["x"] * len(pieces))], folder)
    page = page_of([row(pieces, title=title, prompt=prompt)], folder)
    assert [tag for tag in page.tags if tag != "br"] == plain.tags
    assert len(page.boxes) == len(pieces)


def test_hostile_text_is_shown_and_not_run(tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;$num_steps\"'"
    page = page_of([row([attack, "b"], title=attack, prompt=attack)], tmp_path)
    assert page.boxes[0][1] == attack
    assert page.texts["pre"] == attack
    assert attack in page.texts["h2"]
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    page = page_of([row(["a", "b"])], tmp_path)
    assert {name for name, _ in page.attributes} & {"src", "href", "srcset", "action"} == set()
    text = (tmp_path / "replay.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "$" not in text


def test_rows_share_one_clock_that_ends_with_the_slowest(tmp_path: Path) -> None:
    fast = row(list("abcd"), title="learned", unmask_step=[0, 0, 1, 1], nfe=2)
    slow = row(list("abcd"), title="factor(1.0)", correct=False)
    page = page_of([fast, slow], tmp_path)
    assert ("max", "4") in page.attributes
    assert [attrs["data-step"] for attrs, _ in page.boxes] == [
        "1",
        "1",
        "2",
        "2",
        "1",
        "2",
        "3",
        "4",
    ]
    assert [value for name, value in page.attributes if name == "data-nfe"] == ["2", "4"]
    hue = [attrs["style"] for attrs, _ in page.boxes]
    assert hue[2] == hue[5]
    assert "✓ correct" in page.texts["span"]
    assert "✗ wrong" in page.texts["span"]


def test_line_breaks_are_shown_and_end_the_line(tmp_path: Path) -> None:
    page = page_of([row(["a", "\n", "b"])], tmp_path)
    assert [text for _, text in page.boxes] == ["a", "↵", "b"]
    assert page.tags.count("br") == 1


def test_eos_and_settled_positions_are_faint_and_settled_ones_come_last(tmp_path: Path) -> None:
    one = row(["a", "<eos>", "<eos>", "<eos>"], unmask_step=[0, 2, 1, -1], nfe=3, eos="<eos>")
    page = page_of([one], tmp_path)
    assert ["eos" in attrs["class"].split() for attrs, _ in page.boxes] == [False, True, True, True]
    assert [attrs["data-step"] for attrs, _ in page.boxes] == ["1", "3", "2", "3"]
    assert ["edge" in attrs["class"].split() for attrs, _ in page.boxes] == [
        False,
        False,
        True,
        False,
    ]


def test_a_trajectory_becomes_a_row() -> None:
    tokenizer = CharTokenizer()
    denoiser = CountingDenoiser(tokenizer)
    (done,) = decode(
        denoiser,  # type: ignore[arg-type]
        [tokenizer.encode("12=", add_special_tokens=False)],
        planner("top_k", k=3),
        length=8,
        block_length=4,
        temperature=1.0,
    )
    made = row_of(done, tokenizer, title="top_k(3)", correct=False, eos_id=EOS)
    assert made.prompt == "12="
    assert made.eos == "<eos>"
    assert (made.nfe, made.block_length) == (4, 4)
    assert made.unmask_step == done.unmask_step.tolist()
    assert [*map(len, made.pieces)] == [1 if token < len(SYMBOLS) else 5 for token in done.tokens.tolist()]


def test_impossible_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 pieces and 1 steps"):
        row(["a", "b"], unmask_step=[0])
    with pytest.raises(ValueError, match="nfe - 1 = 1"):
        row(["a", "b"], unmask_step=[0, 2])
    with pytest.raises(ValueError, match="nothing to replay"):
        replay_html([], tmp_path / "none.html")
