"""Does the official dUltra code load what `unmask convert --to dultra` writes? Not part of the test suite.

Usage: python tests/parity/against_dultra.py CHECKOUT [--size tiny|full-width]

CHECKOUT is a clone of https://github.com/chinsengi/dUltra-os. Its code wants transformers 4.53 (put it on
PYTHONPATH before others) and has the width 4096 written into the head: `tiny` runs a copy of it in which that
is the width of the config, `full-width` runs it as it is, on one layer. Random weights; prints the largest
difference of logits, hidden states and planner logits between the official net and ours, and their deviation.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

THEIRS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file

checkout, folder = map(Path, sys.argv[1:])
sys.path.insert(0, str(checkout))
from model.llada.lladou import LLaDOUModelLM

model, report = LLaDOUModelLM.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
assert not any(report.values()), report
given = load_file(folder / "given.safetensors")
with torch.no_grad():
    out = model.eval()(given["tokens"], output_hidden_states=True)
    hidden = out.hidden_states[-1]
    scores = model(hidden, pred_mask_prob=True, timestep=given["time"], mask_index=given["eligible"].bool())
save_file(
    {"logits": out.logits.contiguous(), "hidden": hidden.contiguous(), "scores": scores},
    folder / "theirs.safetensors",
)
"""
TOLERANCE = 1e-4
SIZES = {
    "tiny": {"dim": 64, "num_layers": 2, "num_heads": 4, "mlp_dim": 96, "vocab_size": 320},
    "full-width": {"dim": 4096, "num_layers": 1, "num_heads": 32, "mlp_dim": 512, "vocab_size": 320},
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(arguments.checkout, arguments.size, Path(scratch))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if all(each["difference"] <= TOLERANCE for each in found.values()) else 1


def compare(checkout: Path, size: str, scratch: Path) -> dict[str, dict[str, float]]:
    """Largest absolute difference and standard deviation of each output."""
    folder = scratch / "dultra"
    write(scratch / "own", size)
    shard = "100MB" if size == "full-width" else "200KB"
    words = ["convert", scratch / "own", folder, "--to", "dultra", "--max-shard-size", shard]
    subprocess.run([sys.executable, "-m", "unmask", *words], check=True, stdout=subprocess.DEVNULL)
    rng = torch.Generator().manual_seed(1)
    given = {
        "tokens": torch.randint(0, 300, (2, 24), generator=rng),
        "eligible": (torch.rand(2, 24, generator=rng) < 0.5).byte(),
        "time": torch.rand(2, generator=rng),
    }
    save_file(given, folder / "given.safetensors")
    if size == "tiny":
        checkout = adapted(checkout, scratch / "checkout")
    subprocess.run([sys.executable, "-c", THEIRS, checkout, folder], check=True)
    (folder / "given.safetensors").unlink()
    theirs = load_file(folder / "theirs.safetensors")
    ours = run_ours(folder, given)
    return {
        name: {"difference": float((value - ours[name]).abs().max()), "deviation": float(value.std())}
        for name, value in theirs.items()
    }


def write(folder: Path, size: str) -> None:
    """An untrained net and head in our format."""
    from unmask.models.load import save_denoiser
    from unmask.models.transformer import Transformer, TransformerConfig
    from unmask.planners.learned import LearnedPlanner
    from unmask.planners.load import make_head, save_planner
    from unmask.rng import seeded

    shape = SIZES[size]
    config = TransformerConfig(**shape, mask_id=299, eos_id=298, pad_id=298, qk_norm=False, rope_theta=5e5)
    net = Transformer(config)
    net.initialise(torch.Generator().manual_seed(0))
    sizes = {"hidden_size": shape["dim"], "num_heads": shape["num_heads"], "mlp_dim": shape["mlp_dim"]}
    with seeded(net.device, 0, "head"):
        head = make_head("dultra", **sizes, rope_theta=5e5)
    save_denoiser(folder, net)
    save_planner(folder, LearnedPlanner(head))


def run_ours(folder: Path, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import unmask
    from unmask.layers import Padded

    net, head = unmask.load_denoiser(folder), unmask.load_planner(folder).head
    shape = (given["tokens"].shape[0], given["tokens"].shape[1])
    row_BT = torch.arange(shape[0])[:, None].expand(shape)
    with torch.no_grad():
        out = net(given["tokens"])
        layout = Padded.of(None, shape, row_BT.device)
        everyone_BT = torch.arange(row_BT.numel()).view(shape)
        scores = head.scores(out.hidden, given["eligible"].bool(), given["time"], layout, row_BT, everyone_BT)
    return {"logits": out.logits, "hidden": out.hidden, "scores": scores}


def adapted(checkout: Path, copy: Path) -> Path:
    """The model code with the width of the config for the 4096 that is written into it."""
    for source in sorted((checkout / "model" / "llada").glob("*.py")):
        target = copy / "model" / "llada" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().replace("4096", "self.hidden_size"))
    return copy


if __name__ == "__main__":
    raise SystemExit(main())
