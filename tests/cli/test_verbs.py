"""The command line, as a person meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unmask.checkpoint
import unmask.cli
from tests.train.small import metrics_of, policy_recipe, tensors_of
from unmask.decode.engine import Engine
from unmask.planners.learned import LearnedPlanner
from unmask.planners.load import make_head, save_planner

TINY = ["net.dim=32", "net.mlp_dim=64", "batch_size=8"]


def last_json(out: str) -> Any:
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "factr"], "'factr'"),
        (["-p", "factor(1.0"], "closing bracket"),
        (["-p", "factor(size=2)"], "factor has no 'size'"),
        (["-p", "factor(-1)"], "factor=-1"),
        (["-p", "factor(fast)"], "fast"),
        (["-p", "own"], "planner.json"),
        (["-p", "bundled/nothing"], "bundled/nothing"),
        (["-b", "24"], "block_length 24 does not divide length 64; use 16 or 32"),
        (["--length", "0"], "length 0"),
        (["--length", "2000", "-b", "2000"], "the model holds 128"),
        (["--temperature", "-1"], "temperature -1"),
        (["--device", "abacus"], "abacus"),
        (["--wrong", "1"], "--wrong"),
        (["--dtype", "int8"], "'int8'"),
        (["--graphs"], "use --device cuda"),
        (["--chat"], "has no chat template; leave out --chat"),
    ],
    ids=str,
)
def test_bad_settings_of_a_decode_are_one_line(
    model: Path, refused: Callable[..., str], words: list[str], says: str
) -> None:
    assert says in refused("generate", "Ann has 14.", "-m", model, *words)


@pytest.mark.parametrize(
    ("prompt", "says"), [("", "prompt 0 is empty"), ("q" * 100, "has 100 tokens"), ("Zoë", "Zoë")]
)
def test_prompts_that_cannot_be_completed_are_one_line(
    model: Path, refused: Callable[..., str], prompt: str, says: str
) -> None:
    assert says in refused("generate", prompt, "-m", model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_truncated_checkpoint_is_named(
    model: Path, tmp_path: Path, refused: Callable[..., str], name: str, keep: float
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    assert str(folder / name) in refused("generate", "a", "-m", folder)


def test_a_missing_checkpoint_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert str(tmp_path / "config.json") not in refused("generate", "a", "-m", "./no/such/folder")
    assert "no config.json" in refused("generate", "a", "-m", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llama"}, "'llama'"),
        ({"dim": "wide"}, "dim"),
        ({"size": 3}, "'size'"),
        ({"dim": 64}, "shape"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_kind_is_refused(
    model: Path, tmp_path: Path, refused: Callable[..., str], change: dict[str, Any], says: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert says in refused("generate", "a", "-m", folder)


def test_a_planner_of_another_denoiser_is_refused(
    model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    head = make_head("dultra", hidden_size=64, num_heads=2, mlp_dim=32)
    save_planner(tmp_path, LearnedPlanner(head))
    assert "64" in refused("generate", "a", "-m", model, "-p", tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tiny", "stps=3"], "did you mean 'steps'?"),
        (["tiny", "optim.lrr=3"], "did you mean 'lr'?"),
        (["tiny", "steps=[1"], "steps=[1"),
        (["tiny", "steps=0"], "steps = 0"),
        (["tinny"], "'tinny'"),
        (["init_policy"], "unmask train init"),
        (["tiny", "tasks=[chains]"], "'chains'"),
        (["tiny", "tasks=[]"], "tasks"),
        (["tiny", "net.dim=30"], "net"),
        (["tiny", "--device", "abacus"], "abacus"),
    ],
    ids=str,
)
def test_a_bad_recipe_is_one_line_and_leaves_no_run_behind(
    tmp_path: Path, refused: Callable[..., str], words: list[str], says: str
) -> None:
    assert says in refused("train", "denoise", *words, "--out", tmp_path / "run")
    assert not (tmp_path / "run/last").exists()


def test_an_example_that_does_not_fit_is_told_without_the_worker_that_met_it(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    words = [*TINY, "prompt_length=8", "data_workers=1", "--device", "cpu", "--out", tmp_path / "run"]
    said = refused("train", "denoise", "tiny", *words)
    assert "prompt_length" in said
    assert "Traceback" not in said


def test_a_verb_that_is_unknown_or_lacks_something_is_one_line(refused: Callable[..., str]) -> None:
    assert "'generat'" in refused("generat")
    assert "--planner" in refused("eval")


def test_generate_shows_text_and_cost(model: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    page = tmp_path / "page.html"
    words = [
        "generate",
        r"Ann has 14.\nHow",
        "Bob",
        "-m",
        model,
        "-p",
        "top_k(k=8)",
        "--length",
        16,
        "-b",
        16,
    ]
    status, out, _ = call(*words, "--html", page)
    assert status == 0
    result = last_json(out)
    assert [row["nfe"] for row in result["rows"]] == [2, 2]
    assert sorted(set(result["rows"][0]["unmask_step"])) == [0, 1]
    assert "NFE 2" in out
    assert "<html" in page.read_text()


def test_a_home_folder_after_an_equals_sign_is_found(
    model: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["-p", "top_k(4)", "--length", 8, "--block-length", 8, "--html=~/steps.html"]
    assert call("generate", "=~/", "-m", model, *words)[0] == 0
    assert (tmp_path / "steps.html").is_file()
    assert not (tmp_path / "~").exists()


def test_a_prompt_can_be_a_turn_in_the_chat_template(
    model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    shutil.copytree(model, tmp_path / "chats")
    template = (
        "{{ messages[0].role }}: {{ messages[0].content }}{% if add_generation_prompt %} Bob{% endif %}"
    )
    (tmp_path / "chats/chat_template.jinja").write_text(template)
    words = ["-p", "top_k(4)", "--length", 16, "-b", 16]
    turn = call("generate", "Ann has 14.", "--chat", "-m", tmp_path / "chats", *words)
    assert turn[0] == 0, turn[2]
    whole = call("generate", "user: Ann has 14. Bob", "-m", model, *words)
    other = call("generate", "Ann has 14.", "-m", model, *words)
    assert last_json(turn[1]) == last_json(whole[1]) != last_json(other[1])


def test_generate_decodes_in_the_dtype_that_is_asked_for(
    model: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    decode = Engine.decode

    def noted(self: Engine, *words: Any, **settings: Any) -> Any:
        seen.append(self.denoiser.head.weight.dtype)
        return decode(self, *words, **settings)

    monkeypatch.setattr(Engine, "decode", noted)
    assert call("generate", "Ann has 14.", "-m", model, "--dtype", "bfloat16")[0] == 0
    assert seen == [torch.bfloat16]


def test_bench_times_ways_of_decoding(model: Path, call: Callable[..., Any]) -> None:
    words = ["-m", model, "-p", "top_k(8)", "--length", 16, "-b", 16, "--rounds", 1, "-n", 2]
    status, out, _ = call("bench", *words, "--prompts", "5-9", "--cache", "none", "--cache", "dual")
    assert status == 0
    result = last_json(out)
    counts = {each["name"]: (each["full_nfe"], each["block_nfe"]) for each in result["timings"]}
    assert counts == {"reference loop": (4, 0), "engine": (4, 0), "engine, dual cache": (2, 2)}
    assert all(each["share_of_limit"] > 0 for each in result["timings"])
    assert result["tflops"] > 0
    assert "bare forward" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompts", "chains"], "'chains'"),
        (["--prompts", "5000"], "5000 tokens"),
        (["-n", 0], "0 prompts"),
        (["--rounds", 0], "0 rounds"),
        (["--against", "d1=."], "dultra=FOLDER"),
        (["--against", "fast-dllm=."], "LLaDA family"),
        (["--cache", "paged"], "'paged'"),
        (["--max-rows", "-1"], "max_rows -1"),
        (["--max-rows", "0"], "max_rows 0"),
        (["--cache", "dual)"], "--cache 'dual)'"),
        (["--graphs"], "use --device cuda"),
        (["--dtype", "int8"], "'int8'"),
        (["-p", "factor", "-p", "threshold"], "one planner"),
        (["--against", "dultra=a", "--against", "dultra=b"], "dultra is given twice"),
    ],
    ids=str,
)
def test_bad_settings_of_a_bench_are_one_line(
    model: Path, refused: Callable[..., str], words: list[str], says: str
) -> None:
    assert says in refused("bench", "-m", model, *words)


def test_training_says_where_it_saved_and_does_not_repeat_itself(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    words = ["train", "denoise", "tiny", *TINY, "steps=3", "--out", tmp_path / "run", "--device", "cpu"]
    status, out, err = call(*words)
    assert status == 0
    assert last_json(out)["finished"] is True
    assert last_json(out)["last"]["step"] == 2
    assert str(tmp_path / "run/final") in err
    before = tensors_of(tmp_path / "run/last"), metrics_of(tmp_path / "run")
    status, again, _ = call(*words)
    assert status == 0
    assert last_json(again) == last_json(out)
    after = tensors_of(tmp_path / "run/last"), metrics_of(tmp_path / "run")
    assert after[1] == before[1]
    assert all(after[0][name].equal(value) for name, value in before[0].items())


def test_a_folder_of_another_run_is_not_touched(
    tmp_path: Path, call: Callable[..., Any], refused: Callable[..., str]
) -> None:
    words = ["train", "denoise", "tiny", *TINY, "--out", tmp_path / "run"]
    call(*words, "steps=1")
    before = tensors_of(tmp_path / "run/final")
    assert "another recipe" in refused(*words, "steps=2")
    assert all(tensors_of(tmp_path / "run/final")[name].equal(value) for name, value in before.items())


def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    words = ["train", "denoise", "tiny", *TINY, "steps=4", "save_every=2", "--out", tmp_path / "run"]
    write = unmask.checkpoint.save_file
    written: list[str] = []

    def fill_up(tensors: Any, path: str) -> None:
        written.append(path)
        if len(written) > 2:  # the model and the optimiser of the first checkpoint
            raise OSError(28, "No space left on device")
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr("unmask.checkpoint.save_file", fill_up)
        status, _, err = call(*words)
    assert status == 2
    assert err.splitlines()[-1].startswith("unmask: cannot save to ")
    assert "No space left on device" in err.splitlines()[-1]
    assert json.loads((tmp_path / "run/last/progress.json").read_text())["step"] == 2
    status, _, _ = call(*words)
    assert status == 0
    assert [entry["step"] for entry in metrics_of(tmp_path / "run")] == [0, 1, 2, 3]


def test_init_and_grpo_run_from_a_recipe_file(model: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    recipe = policy_recipe(model, updates=2)
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    status, out, _ = call("train", "grpo", path, "--out", tmp_path / "run", "--device", "cpu")
    assert status == 0
    assert last_json(out)["steps"] == 2
    words = [f"denoiser={model}", "steps=2", "batch_size=4", "precision=float32", "data_workers=0"]
    status, out, _ = call(
        "train", "init", "init_policy", *words, "--out", tmp_path / "init", "--device", "cpu"
    )
    assert status == 0
    assert last_json(out)["last"].keys() >= {"loss", "agreement"}


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Of all processes of the terminal's group, as Ctrl-C does; data workers are among them."""
    run = tmp_path / "run"
    words = ["train", "denoise", "tiny", *TINY, "steps=4000", "data_workers=1", "--out", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "unmask", *words, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert "the same command goes on" in err
    result = last_json(out)
    assert result["finished"] is False
    assert 0 < result["steps"] < 4000
    assert json.loads((run / "last/progress.json").read_text())["step"] == result["steps"]
    assert [entry["step"] for entry in metrics_of(run)] == list(range(result["steps"]))


def test_weights_that_are_no_numbers_are_one_line(
    model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    net = unmask.load_denoiser(model)
    with torch.no_grad():
        net.head.weight[5] = torch.nan
    unmask.save_denoiser(tmp_path / "nan", net)
    for decoder in ("engine", "loop"):
        words = ["-m", tmp_path / "nan", "-p", "factor", "-t", "chain", "-n", 2, "--decoder", decoder]
        assert "NaN" in refused("eval", *words)
