"""`unmask eval`, `pareto` and `score`, as a person meets them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eval.toys import record
from unmask.decode.engine import Engine
from unmask.eval.records import append_records, read_records
from unmask.tasks.load import load_task
from unmask.workers import Workers

TINY = ["net.dim=32", "net.mlp_dim=64", "batch_size=8"]


def last_json(out: str) -> Any:
    return json.loads(out.splitlines()[-1])


def test_eval_and_pareto_end_with_one_line_of_json(
    model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    records = tmp_path / "records.jsonl"
    words = ["-m", model, "-p", "top_k(k=16)", "-p", "top_k(k=32)", "-n", 2, "-b", 64, "--out", records]
    status, out, _ = call("eval", *words)
    assert status == 0
    summaries = last_json(out)["summaries"]
    assert {(each["task"], each["nfe"]["value"]) for each in summaries} == {
        (task, nfe) for task in ("chain", "code") for nfe in (2, 4)
    }
    assert len(records.read_text().splitlines()) == 8
    words = [records, "--out", tmp_path / "plot.png", "--html", tmp_path / "page.html"]
    status, out, _ = call("pareto", *words, "--against", "top_k(k=16)", "--intervals", "bootstrap")
    assert status == 0
    found = last_json(out)
    assert found["frontier"].keys() == {"chain", "code"}
    assert {each["run"].split(" on ")[0] for each in found["pairs"]} == {"top_k(k=32)"}
    assert {each["nfe_ratio"]["estimate"]["value"] for each in found["pairs"]} == {0.5}
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "top_k(k=32)" in (tmp_path / "page.html").read_text()


def test_eval_goes_on_where_it_stopped_and_keeps_traces_and_surroundings(
    model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "records.jsonl"
    words = ["eval", "-m", model, "-p", "top_k(k=32)", "-t", "chain", "-b", 64, "--out", out, "--traces"]
    assert call(*words, "-n", 1)[0] == 0
    status, printed, _ = call(*words, "--limit", 3, "--alone", 2)
    assert status == 0
    assert last_json(printed)["summaries"][0]["num_records"] == 3
    assert last_json(printed)["alone"][0]["same_tokens"] == 2
    assert len(out.read_text().splitlines()) == 3
    assert len((tmp_path / "records.traces.jsonl").read_text().splitlines()) == 3
    launches = json.loads((tmp_path / "records.jsonl.meta.json").read_text())["launches"]
    assert [launch["dtype"] for launch in launches] == ["float32"] * 2
    status, printed, _ = call("pareto", out, "--out", tmp_path / "plot.png")
    assert last_json(printed)["summaries"][0]["traced"]["order"]["tokens_a_step"] == 32


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-n", "many"], "'many'"),
        (["-n", "all"], "chain never ends"),
        (["-n", "0"], "nothing to evaluate"),
        (["--split", "dev"], "'dev'"),
        (["--dtype", "float31"], "float31"),
        (["--traces"], "--out FILE.jsonl"),
        (["--cache", "all"], "use one of none, prefix, dual"),
        (["--cache", "dual(0)"], "or e.g. dual(2)"),
        (["--cache", "dual)"], "--cache 'dual)'"),
        (["--cache", "dual(2"], "--cache 'dual(2'"),
        (["--cache", "dual(02)"], "--cache 'dual(02)'"),
        (["--cache", "none(3)"], "--cache 'none(3)'"),
        (["--decoder", "slow"], "use engine or loop"),
        (["--decoder", "loop", "--cache", "dual"], "loop takes no --cache"),
        (["--decoder", "loop", "--compile"], "loop takes no --cache, --graphs, --compile"),
        (["--graphs"], "use --device cuda"),
        (["--graphs", "--device-map", "auto"], "on one GPU"),
        (["--steps-per-sync", 0], "steps_per_sync 0"),
        (["--steps-per-sync", 2, "--cache", "dual"], "without a cache"),
        (["--device-map", "everywhere"], "unknown device_map 'everywhere'"),
    ],
    ids=str,
)
def test_bad_settings_of_an_evaluation_are_one_line(
    model: Path, refused: Callable[..., str], words: list[str], says: str
) -> None:
    assert says in refused("eval", "-m", model, "-p", "top_k(k=32)", "-t", "chain", *words)


def test_engine_and_reference_loop_make_the_same_records(
    model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    made = {}
    ways = {"engine": [], "queued": ["--steps-per-sync", 3], "loop": ["--decoder", "loop"]}
    for name, way in ways.items():
        out = tmp_path / f"{name}.jsonl"
        words = ["-m", model, "-p", "random(5)", "-p", "factor(1.0)", "-n", 5, "--batch-size", 2]
        assert call("eval", *words, "--temperature", 0.7, *way, "--out", out)[0] == 0
        made[name] = {(one.planner, one.sample): replace(one, seconds=0) for one in read_records(out)}
    assert made["engine"] == made["loop"]
    assert made["engine"] == made["queued"]


@pytest.mark.parametrize("verb", [["eval", "-t", "chain", "-n", 1], ["generate", "Bob"]], ids=lambda v: v[0])
def test_the_engine_is_set_up_as_the_options_say(
    verb: list[Any], model: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    begin = Engine.__init__

    def noted(self: Engine, denoiser: Any, planner: Any, settings: Any) -> None:
        made.append(settings)
        begin(self, denoiser, planner, replace(settings, compile=False))  # compiling takes a minute

    monkeypatch.setattr(Engine, "__init__", noted)
    words = [*verb, "-m", model, "-p", "top_k(32)", "--compile"]
    assert call(*words, "--steps-per-sync", 3)[0] == 0
    assert call(*words, "--cache", "dual(2)")[0] == 0
    assert [(one.compile, one.steps_per_sync, one.cache, one.refresh_every) for one in made] == [
        (True, 3, "none", None),
        (True, 1, "dual", 2),
    ]


def test_a_hub_model_is_decoded_and_recorded_at_its_revision(
    model: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def snapshot_download(hub_id: str, *, revision: str, **settings: Any) -> str:
        asked.add((hub_id, revision))
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    words = ["-m", "somebody/net@v2", "-p", "top_k(32)", "-t", "chain", "-n", 1, "--device-map", "auto"]
    assert call("eval", *words, "--out", tmp_path / "records.jsonl")[0] == 0
    assert asked == {("somebody/net", "v2")}
    assert read_records(tmp_path / "records.jsonl")[0].model == "somebody/net@v2"
    (launch,) = json.loads((tmp_path / "records.jsonl.meta.json").read_text())["launches"]
    assert (launch["model"], launch["device_map"]) == ("somebody/net@v2", "auto")


def test_a_cache_is_told_in_records_and_table(model: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    out = tmp_path / "records.jsonl"
    words = ["-m", model, "-p", "top_k(8)", "-t", "chain", "-n", 2]
    assert call("eval", *words, "--cache", "prefix", "--out", out)[0] == 0
    for one in read_records(out):
        assert (one.cache, one.cache_exact, one.nfe) == ("prefix", False, 8)
        assert 0 < one.nfe_block < one.nfe
    assert call("eval", *words, "--cache", "dual(1)", "--out", tmp_path / "often.jsonl")[0] == 0
    for often in read_records(tmp_path / "often.jsonl"):
        assert (often.cache, often.nfe_full, often.nfe_block) == ("dual(1)", 4, 4)
    _, printed, _ = call("pareto", out, "--out", tmp_path / "plot.png")
    assert {"full", "block"} <= set(printed.splitlines()[0].split())


def test_a_model_over_all_gpus_leaves_none_for_a_second_process(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.workers.workers", lambda *given: Workers(0, 2))
    said = refused("eval", "-m", "no/such/model", "-p", "top_k(2)", "--device-map", "auto")
    assert "there are 2 processes; start one" in said


def test_pareto_names_a_baseline_that_is_not_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    append_records(tmp_path / "records.jsonl", [record()])
    words = ["--out", tmp_path / "plot.png", "--against", "top_k(9)"]
    assert "it has top_k(2)" in refused("pareto", tmp_path / "records.jsonl", *words)
    assert "records.jsonl, line 1" in refused("pareto", broken(tmp_path), *words)


@pytest.mark.parametrize("margin", ["nan", "-0.1", "1.5", "inf"])
def test_pareto_refuses_a_margin_that_is_no_fraction(
    tmp_path: Path, refused: Callable[..., str], margin: str
) -> None:
    append_records(tmp_path / "records.jsonl", [record()])
    words = ["--out", tmp_path / "plot.png", "--margin", margin]
    assert "is no fraction" in refused("pareto", tmp_path / "records.jsonl", *words)


def broken(folder: Path) -> Path:
    path = folder / "broken" / "records.jsonl"
    path.parent.mkdir()
    path.write_text('{"task": 1}\n')
    return path


def test_score_grades_what_is_in_a_file(tmp_path: Path, call: Callable[..., Any]) -> None:
    task = load_task("chain")
    lines = []
    for number in range(4):
        problem = task.problem("test", number)
        completion = task.reference(problem, 1) if number else "answer 3"
        lines.append(json.dumps({"id": problem.id, "completion": completion}) + "\n")
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join(lines))
    status, out, _ = call("score", path, "--task", "chain")
    assert status == 0
    assert last_json(out)["n"] == 4
    assert last_json(out)["accuracy"] == 0.75


def test_score_tells_each_run_of_a_file_of_records_by_itself(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    task = load_task("chain")
    problem = task.problem("test", 0)
    right = task.reference(problem, 1)
    entries = [
        record(task="chain", id=problem.id, planner=planner, completion=text, prompt=problem.prompt)
        for planner, text in (("top_k(1)", right), ("top_k(2)", "answer 3"))
    ]
    append_records(tmp_path / "records.jsonl", entries)
    grades = tmp_path / "grades.jsonl"
    status, out, _ = call("score", tmp_path / "records.jsonl", "--task", "chain", "--out", grades)
    assert status == 0
    found = last_json(out)
    assert [one["accuracy"] for one in found["runs"]] == [1, 0]
    assert (found["n"], found.get("accuracy")) == (2, None)
    names = [one["run"] for one in found["runs"]]
    assert [line.partition(":")[0] for line in out.splitlines()[:2]] == names
    assert [json.loads(line)["run"] for line in grades.read_text().splitlines()] == names


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 2 is no JSON"),
        (b"[]", "line 2 has no text"),
        (b'{"id": "test-1"}', "line 2 has no text"),
        (b'{"completion": "x"}', "line 2: id None"),
        (b'{"completion": "x", "id": "dev-1"}', "line 2: id 'dev-1'"),
        ('{"completion": "x", "id": "test-²"}'.encode(), "line 2: id 'test-²'"),
        (b"\xff\xfe", "made.jsonl"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_scored_is_told_by_line(
    tmp_path: Path, refused: Callable[..., str], line: bytes, says: str
) -> None:
    path = tmp_path / "made.jsonl"
    path.write_bytes(b'{"completion": "x", "id": "test-1"}\n' + line + b"\n")
    assert says in refused("score", path, "--task", "chain")


def test_a_file_with_nothing_to_score_is_told(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "made.jsonl"
    assert str(path) in refused("score", path, "--task", "chain")
    path.write_text("\n")
    assert "no generations" in refused("score", path, "--task", "chain")
    assert "'chains'" in refused("score", path, "--task", "chains")


def test_no_file_that_is_read_is_written(
    model: Path, tmp_path: Path, call: Callable[..., Any], refused: Callable[..., str]
) -> None:
    out = tmp_path / "records.jsonl"
    words = ["eval", "-m", model, "-p", "top_k(k=32)", "-t", "chain", "-b", 64, "-n", 1, "--out", out]
    assert call(*words)[0] == 0
    before = out.read_bytes()
    for mistaken in (
        ["score", out, "--task", "chain", "--out", out],
        ["pareto", out, "--out", out],
        ["pareto", out, "--out", tmp_path / "plot.png", "--html", out],
        [*words, "--html", out],
    ):
        assert "would be overwritten" in refused(*mistaken)
        assert out.read_bytes() == before


def test_a_verb_that_fails_leaves_no_empty_file(
    model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    append_records(tmp_path / "records.jsonl", [record()])
    for failing in (
        ["eval", "-m", model, "-p", "nope", "-t", "chain", "--out", tmp_path / "new.jsonl"],
        ["pareto", tmp_path / "records.jsonl", "--against", "nope", "--out", tmp_path / "new.png"],
        ["score", tmp_path / "records.jsonl", "-t", "chains", "--out", tmp_path / "new.jsonl"],
        ["generate", "Ann has 14.", "-m", model, "-p", "nope", "--html", tmp_path / "new.html"],
    ):
        refused(*failing)
        assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "top_k(2)"], "top_k(2) is given twice"),
        (["-t", "chain", "-t", "chain"], "chain is given twice"),
        (["-b", 32, "-b", 32], "32 is given twice"),
        (["--alone", 1], "use 2 or more"),
        (["--alone", -2], "use 2 or more"),
    ],
)
def test_eval_refuses_before_the_work_what_it_cannot_use(
    refused: Callable[..., str], words: list[Any], says: str
) -> None:
    assert says in refused("eval", "-m", "no/such/model", "-p", "top_k(2)", "-n", 2, *words)
