"""Recipes: strict, frozen settings of a training run, from YAML plus `key=value` overrides.

An unknown key is an error that names the nearest known one.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

RECIPES = Path(__file__).parent / "recipes"

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_takes_the_default(cls, content: Any) -> Any:
        """So that `net=null` unsets what a recipe says; where null means something, it stays."""
        if not isinstance(content, dict):
            return content
        known = cls.model_fields
        has_null = {name for name, field in known.items() if type(None) in get_args(field.annotation)}
        return {
            name: value
            for name, value in content.items()
            if value is not None or name in has_null or name not in known
        }


class NetConfig(Settings):
    """The net to train from scratch."""

    dim: PositiveInt = 256
    num_layers: PositiveInt = 10
    num_heads: PositiveInt = 4
    mlp_dim: PositiveInt = 704
    max_length: PositiveInt = 512
    qk_norm: bool = True
    """Norms of queries and keys; the LLaDA and dUltra formats have none."""

    @model_validator(mode="after")
    def _heads_are_even(self) -> Self:
        if self.dim % (2 * self.num_heads):
            raise ValueError(f"dim {self.dim} does not split into {self.num_heads} heads of even width")
        return self


class OptimConfig(Settings):
    """AdamW with linear warm-up, then `constant` or a cosine down to 0."""

    lr: PositiveFloat = 1e-3
    warmup: int = Field(100, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = Field(0.01, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    grad_clip: PositiveFloat = 1.0


class LoraConfig(Settings):
    """Low-rank adapters (Hu et al. 2021) on a frozen net, through PEFT."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(("qkv", "out", "gate_up", "down"), min_length=1)
    """Names of the linear layers that get one."""


class RunConfig(Settings):
    """What every training run has."""

    tasks: tuple[str, ...] = Field(("chain", "code"), min_length=1)
    seed: int = 0
    length: PositiveInt = 64
    precision: Literal["float32", "bf16"] = "float32"
    save_every: PositiveInt = 100
    """Steps between checkpoints; one is also written at the end and on Ctrl-C."""
    minutes: PositiveFloat | None = None
    """End after this much wall time of steps, where that comes first; the schedule follows the clock."""


class ReferenceConfig(RunConfig):
    """Runs that learn from references: a row is a prompt and a right completion."""

    data: str | None = None
    """A file of JSON lines {"prompt": ..., "completion": ...} to learn from instead of tasks."""
    holdout: int = Field(0, ge=0)
    """First examples of the file, and of each finite task, that are kept out of training."""
    too_long: Literal["error", "skip"] = "error"
    """What happens to examples that do not fit; `skip` needs a file or finite tasks."""
    prompt_length: PositiveInt = 48
    """Prompts are left-padded to this many positions."""
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    """Rows a step, over all processes."""
    data_workers: int = Field(0, ge=0)
    """Processes that make problems, for each training process."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.data is not None and self.tasks != type(self).model_fields["tasks"].default:
            raise ValueError("data and tasks are both given; a run learns from one of them")
        return self


class DenoiseRecipe(ReferenceConfig):
    """`unmask train denoise`: the LLaDA objective."""

    kind: Literal["denoise"]
    start: str | None = None
    """A denoiser to go on from: folder, hub id or "bundled/NAME"; null makes a new one, `net`."""
    net: NetConfig = NetConfig()
    lora: LoraConfig | None = None
    """Train adapters and leave the net at `start` as it is."""
    optim: OptimConfig = OptimConfig()
    packed_length: PositiveInt | None = None
    """Positions of a row that several examples share without padding; null gives each its own."""
    anneal_steps: int = Field(0, ge=0)
    """Steps in which attention goes from causal to bidirectional, for nets that were causal."""
    micro_batch: PositiveInt | None = None
    """Examples a backward pass, of each process; null takes its whole share of the batch at once."""
    recompute: bool = False
    """Compute activations again in the backward pass: a third more work, a fraction of the memory."""
    compile: bool = False
    """Compile the blocks of the net with torch.compile."""

    @model_validator(mode="after")
    def _net_and_start_agree(self) -> Self:
        if self.start is not None and self.net != NetConfig():
            raise ValueError(f"net is of a new denoiser, but start is {self.start!r}; leave one out")
        if self.start is None and self.lora is not None:
            raise ValueError("lora needs a denoiser to adapt; give start")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        total = self.prompt_length + self.length
        if self.start is None and total > self.net.max_length:
            raise ValueError(
                f"prompt_length + length is {total}, but net.max_length is {self.net.max_length}"
            )
        if self.packed_length is not None and self.packed_length < total:
            raise ValueError(
                f"packed_length {self.packed_length} holds no example of prompt_length + length = {total}"
            )
        return self


class HeadConfig(Settings):
    """The planner to train: a new head, or one to go on from."""

    kind: Literal["dultra", "confidence"] = "dultra"
    start: str | None = None
    """A planner folder to start from; null makes a new head."""
    law: Literal["nonempty", "fallback", "plackett_luce"] = "nonempty"
    mlp_dim: PositiveInt | None = None
    """Of a new head; null takes the denoiser's (dultra) or 512 (confidence)."""
    bias: float | None = None
    """Initial logit of a new confidence policy; null takes -2."""

    @model_validator(mode="after")
    def _start_has_a_shape(self) -> Self:
        if self.start is not None and (self.mlp_dim is not None or self.bias is not None):
            raise ValueError(
                f"mlp_dim and bias are of a new head, but start is {self.start!r}; leave them out"
            )
        return self


class InitRecipe(ReferenceConfig):
    """`unmask train init`: imitate Fast-dLLM's factor rule on noised references (dUltra, stage 1)."""

    kind: Literal["init"]
    denoiser: str = "bundled"
    head: HeadConfig = HeadConfig()
    optim: OptimConfig = OptimConfig(lr=3e-4)
    factor: PositiveFloat = 1.0
    min_block: PositiveInt = 16
    """Shortest noised window; the longest is the whole completion."""
    class_weight: bool = True
    """Weigh the positives by negatives / positives, as published."""
    steps: PositiveInt = 500
    batch_size: PositiveInt = 256


class RewardConfig(Settings):
    kind: Literal["additive", "multiplicative"] = "additive"
    step_cost: float = Field(0.002, ge=0)
    """additive: correct - step_cost * NFE."""
    alpha: float = Field(1.0, ge=0)
    """multiplicative: correct * ((L - NFE + 1) / L) ** alpha."""


class GrpoRecipe(RunConfig):
    """`unmask train grpo`: GRPO on unmasking trajectories.

    dUltra mode: `train_denoiser: true` with an additive reward and `advantage_floor: 0`.
    Policy mode: `train_denoiser: false` with a multiplicative reward.
    """

    kind: Literal["grpo"]
    denoiser: str = "bundled"
    head: HeadConfig = HeadConfig()
    train_denoiser: bool = True
    lora: LoraConfig | None = None
    """Train adapters in place of the denoiser's own weights."""
    reward: RewardConfig = RewardConfig()
    optim: OptimConfig = OptimConfig(lr=5e-5)
    """Of the planner."""
    denoiser_lr: PositiveFloat = 5e-6
    updates: PositiveInt = 100
    prompts: PositiveInt = 16
    """Problems an update, over all processes."""
    group_size: int = Field(8, ge=2)
    inner_updates: PositiveInt = 1
    """Optimiser steps on one batch of rollouts (mu)."""
    block_lengths: tuple[PositiveInt, ...] = Field((32,), min_length=1)
    """Updates decode with one of these each, in turn."""
    temperature: float = Field(0.1, ge=0)
    stop_at_eos: bool = False
    """Rows end once an EOS has only fixed tokens before it; the rest costs no step and teaches nothing."""
    advantage_floor: float | None = 0.0
    """Advantages under it count as 0 (dUltra's C); null keeps all."""
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 1.0
    per_step: Literal["sum", "mean"] = "sum"
    """How the steps of a row combine: dUltra sums (over L), the policies paper takes the mean."""
    rollout_batch: PositiveInt = 256
    """Rows that the decode engine of a process holds at a time."""
    graphs: bool = False
    """Replay the steps of rollouts as CUDA graphs, whose memory the updates then lack."""
    cache: Literal["none", "prefix", "dual"] = "none"
    """Of rollouts: learn to decode with a cache. Updates see what the cache held, so they stay on-policy."""
    refresh_every: PositiveInt | None = None
    """With a cache, see `unmask.EngineSettings`."""
    micro_batch_tokens: PositiveInt = 16384
    compile: bool = False
    """Compile the blocks of the denoiser with torch.compile."""

    @model_validator(mode="after")
    def _lora_trains(self) -> Self:
        if self.lora is not None and not self.train_denoiser:
            raise ValueError("lora adapts the denoiser, but train_denoiser is false; leave one out")
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0 here: a replay has to see the net that decoded")
        return self

    @model_validator(mode="after")
    def _blocks_divide(self) -> Self:
        odd = [block for block in self.block_lengths if self.length % block]
        if odd:
            raise ValueError(
                f"block_lengths {list(self.block_lengths)} must each divide length {self.length}"
            )
        return self


Recipe = DenoiseRecipe | InitRecipe | GrpoRecipe
KINDS: dict[str, type[Recipe]] = {"denoise": DenoiseRecipe, "init": InitRecipe, "grpo": GrpoRecipe}


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file, or from the name of a bundled one, with `a.b=value` overrides.

    Raises:
        ValueError: in one line, naming the key and the nearest known one, or the value that is wrong.
    """
    path = Path(path_or_name)
    if not path.is_file():
        path = RECIPES / f"{path_or_name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {str(path_or_name)!r}; give a YAML file or one of {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings")
    for override in overrides:
        _apply(content, override)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{path}: kind is {kind!r}; use one of {', '.join(KINDS)}")
    return parse(KINDS[kind], content, str(path))


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"override {override!r} is not of the form key=value")
    *parents, last = key.strip().split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ValueError(f"override {override!r}: {parent} has no settings inside")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"override {override!r}: {text!r} is no YAML value") from error


def parse(kind: type[SettingsT], content: dict[str, Any], origin: str) -> SettingsT:
    """Validated settings, or a one-line ValueError."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{origin}: unknown key {where!r}{_nearest(kind, first['loc'])}") from error
        if first["type"] == "value_error":  # of settings that do not fit together: the message says which
            inside = f"{where}: " if where else ""
            raise ValueError(f"{origin}: {inside}{first['ctx']['error']}") from error
        raise ValueError(f"{origin}: {where} = {first['input']!r}: {first['msg']}") from error


def _nearest(kind: type[Settings], location: tuple[str | int, ...]) -> str:
    """A hint for an unknown key: the nearest name at its level."""
    for part in location[:-1]:
        annotation = kind.model_fields[str(part)].annotation
        inside = get_args(annotation) or (annotation,)  # `LoraConfig | None` has two
        (kind,) = [each for each in inside if isinstance(each, type) and issubclass(each, Settings)]
    known = list(kind.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


def split_call(text: str, what: str) -> tuple[str, list[tuple[str, str]]]:
    """`name(1.0, key=value)` as its name and its (key, value) pairs, with "" for a key that is not said.

    Raises:
        ValueError: for brackets that do not match; `what` says of what the text is the name.
    """
    name, bracket, inside = text.partition("(")
    if bracket and not inside.endswith(")"):
        raise ValueError(f"{what} {text!r} lacks its closing bracket")
    pairs = []
    for part in inside.removesuffix(")").split(","):
        if part.strip():
            key, equals, value = part.partition("=")
            pairs.append((key.strip(), value.strip()) if equals else ("", part.strip()))
    return name.strip(), pairs
