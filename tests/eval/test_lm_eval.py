"""The model `unmask` inside lm-evaluation-harness, on two tasks of our own: no network."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unmask.decode.engine import EngineSettings
from unmask.tasks.load import load_task

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (extra lm-eval)")

GENERATE = """
task: chain_answers
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["<never>"]
  do_sample: false
filter_list:
  - name: last
    filter:
      - function: regex
        regex_pattern: "answer (\\\\d+)"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
CHOOSE = """
task: chain_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: 0
doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
NUM_PROBLEMS = 6


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out problems of `chain` with the right derivation and one whose answer is another number."""
    folder = tmp_path_factory.mktemp("tasks")
    task = load_task("chain")
    lines = []
    for index in range(NUM_PROBLEMS):
        problem = task.problem("test", index)
        right = task.reference(problem, 0)
        head, _, answer = right.rpartition(" ")
        wrong = f"{head} {(int(answer) + 7) % 90 + 10}"
        line = {"question": problem.prompt, "answer": answer, "choices": [right, wrong]}
        lines.append(json.dumps(line) + "\n")
    (folder / "data.jsonl").write_text("".join(lines))
    for name, text in (("generate", GENERATE), ("choose", CHOOSE)):
        (folder / f"{name}.yaml").write_text(text.format(data=folder / "data.jsonl"))
    return folder


@pytest.fixture(scope="module")
def finished(tasks: Path) -> subprocess.CompletedProcess[str]:
    """One launch of the harness for both tasks: it takes long to start."""
    arguments = (
        "pretrained=bundled,planner=threshold(0.9),length=64,block_length=32,mc_num=32,check_greedy=false"
    )
    command = [sys.executable, "-m", "unmask.eval.lm_eval", "--model", "unmask", "--device", "cpu"]
    command += ["--tasks", "chain_answers,chain_choices", "--include_path", str(tasks), "--batch_size", "8"]
    command += ["--model_args", f"{arguments},log={tasks / 'log.jsonl'}", "--output_path", str(tasks / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tasks / "hf")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | offline | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=280,
    )


def results(tasks: Path, task: str) -> dict[str, Any]:
    (path,) = (tasks / "out").rglob("results*.json")
    found: dict[str, Any] = json.loads(path.read_text())["results"][task]
    return found


def test_the_harness_scores_completions_of_any_planner(
    tasks: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert results(tasks, "chain_answers")["exact_match,last"] >= 5 / 6
    told = [json.loads(line) for line in (tasks / "log.jsonl").read_text().splitlines()]
    assert len(told) == NUM_PROBLEMS
    assert all(2 <= each["nfe"] < 64 for each in told)
    assert "NFE each" in finished.stderr


def test_the_harness_finds_right_derivations_likelier(
    tasks: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert results(tasks, "chain_choices")["acc,none"] >= 5 / 6


def test_rolling_likelihoods_chat_without_template_and_unknown_sizes_are_refused() -> None:
    from unmask.eval.lm_eval import UnmaskLM

    model = UnmaskLM(batch_size="4", device="cpu", planner="top_k(8)")
    with pytest.raises(ValueError, match="no rolling log-likelihood"):
        model.loglikelihood_rolling([])
    with pytest.raises(ValueError, match="bundled has no chat template"):
        model.apply_chat_template([{"role": "user", "content": "hello"}])
    with pytest.raises(ValueError, match="'auto': give a number"):
        UnmaskLM(batch_size="auto", device="cpu")


def test_no_requests_have_no_completions() -> None:
    from unmask.eval.lm_eval import UnmaskLM

    assert UnmaskLM(device="cpu", planner="top_k(8)").generate_until([]) == []


def test_the_engine_is_set_by_model_arguments() -> None:
    from unmask.eval.lm_eval import UnmaskLM

    model = UnmaskLM.create_from_arg_string("device_map=auto,compile=True,cache=dual", {"device": "cpu"})
    assert isinstance(model, UnmaskLM)
    assert model.harness.decode.settings == EngineSettings(compile=True, cache="dual")
    with pytest.raises(ValueError, match="compile='no': give True or False"):
        UnmaskLM.create_from_arg_string("compile=no", {"device": "cpu"})
    with pytest.raises(ValueError, match="CUDA graphs, and the model is on cpu"):
        UnmaskLM(device="cpu", planner="top_k(8)", graphs=True).harness.generate([("hello", {})])


def test_a_chat_template_of_the_checkpoint_is_used() -> None:
    from unmask.eval.lm_eval import UnmaskLM

    model = UnmaskLM(device="cpu", planner="top_k(8)")
    model.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert model.apply_chat_template([{"role": "user", "content": "hi"}]) == "<user>hi"
    assert model.chat_template(True) == model.tokenizer.chat_template
