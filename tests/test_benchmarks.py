"""The scripts of benchmarks/, at a size for a CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unmask
from benchmarks import forward_8b, published
from benchmarks.sizes import SIZES, random_net, random_planner, write_checkpoint


def test_the_large_shape_is_that_of_llada_8b() -> None:
    from unmask.models.transformer import Transformer

    with torch.device("meta"):
        net = Transformer(SIZES["8b"])
    assert sum(each.numel() for each in net.parameters()) == 8_015_581_184


def test_a_written_checkpoint_loads_from_its_shards(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, SIZES["tiny"], "cpu", torch.float32, shard_bytes=100_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    net = unmask.load_denoiser(tmp_path)
    assert replace(net.config, num_kv_heads=None) == SIZES["tiny"]
    assert sum(4 * each.numel() for each in net.parameters()) == written
    assert 0.018 < float(net.head.weight.std()) < 0.022


def test_the_head_of_equal_scores_makes_the_schedule() -> None:
    net = random_net(SIZES["tiny"], "cpu", torch.float32)
    planner = random_planner(net, probability=0.5).tuned(mode="top_k")
    (row,) = unmask.decode(net, [[1, 2, 3]], planner, length=64, block_length=32)
    assert row.nfe == 2 * 6  # 32 masks, half of them each time: 16, 8, 4, 2, 1, 1


def test_forward_measures_loading_and_each_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "forward.json"
    words = "--size tiny --device cpu --dtype float32 --tokens 16 --batch 1 2 --repeats 3 --profile"
    result = forward_8b.main([*words.split(), "--folder", str(tmp_path), "--out", str(out)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(out.read_text()) == result
    assert [(each["batch"], each["mode"]) for each in result["forward"]] == [(1, "eager"), (2, "eager")]
    assert all(each["ms"] > each["matrix_products_ms"] > 0 for each in result["forward"])
    assert result["load"]["warm_seconds"] > 0
    assert result["load"]["cold_host_anonymous_per_weight_byte"] >= 0
    assert result["profile"]["eager"]["longest"][0]["ms"] > 0
    assert list(tmp_path.iterdir()) == [out.parent]  # the checkpoint is gone


def test_published_without_a_clone_times_our_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "published.json"
    words = "--size tiny --device cpu --dtype float32 --length 32 --prompt 20 --rounds 1"
    scenarios = ["--scenarios", "dultra-1", "rollout-mixed", "fast-dllm-1", "policy-1"]
    result = published.main([*words.split(), *scenarios, "--out", str(out)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(out.read_text()) == result
    timings = {name: report["timings"] for name, report in result["scenarios"].items()}
    assert [each["nfe_of_rows"] for each in timings["dultra-1"]] == [[6], [6]]
    loop, engine = timings["rollout-mixed"]
    assert loop["nfe_of_rows"] == engine["nfe_of_rows"]
    assert len(set(engine["nfe_of_rows"])) > 1
    loop, engine = timings["policy-1"]
    assert loop["nfe_of_rows"] == engine["nfe_of_rows"]
    assert engine["overhead"] is not None
    cached = {each["name"]: (each["full_nfe"], each["block_nfe"]) for each in timings["fast-dllm-1"]}
    assert cached["engine"] == (8, 0)
    assert cached["engine, prefix cache"] == cached["engine, dual cache"] == (1, 7)
