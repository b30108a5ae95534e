"""Numbers with intervals, as pure functions of records.

Problems are the unit: several seeds of one problem are one cluster, because they share its
difficulty. Every mean is the mean over problems of the mean over that problem's samples, and every
interval is a 95 % one over problems, so more seeds narrow it and never as much as more problems.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from unmask.eval.records import Record

Z_95 = 1.959964
Cluster = tuple[str, str]
"""Task and problem id."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, whose ends are NaN where a single problem leaves it unknown."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Paired:
    """A comparison of two record sets over the samples that both have."""

    estimate: Estimate
    num_pairs: int
    num_problems: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All records of one task, model, planner and block length."""

    task: str
    model: str
    planner: str
    block_length: int
    num_records: int
    num_problems: int
    accuracy: Estimate
    nfe: Estimate
    tpf: float
    """Content tokens per denoiser call: the sum of tokens over the sum of NFE."""
    seconds: float
    """Mean per sample."""


def wilson(successes: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a proportion; fractional counts are effective sample sizes.

    Raises:
        ValueError: unless 0 <= successes <= n and n > 0.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n > 0")
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def accuracy(records: Sequence[Record]) -> Estimate:
    """The share of correct samples, with a Wilson interval at the effective sample size.

    With n problems whose mean outcomes have variance s², the samples count as n p (1 - p) / s²
    independent ones. That is n when every problem has one sample (then this is Wilson's interval)
    or its seeds always agree, and at most the number of samples. Unlike a normal interval over
    per-problem means it has a width where everything is right or everything wrong.
    """
    means = _problem_means(records, lambda record: float(record.correct))
    share = _mean(means)
    spread = share * (1 - share)
    variance = sum((mean - share) ** 2 for mean in means) / len(means)
    if spread <= 0:
        size = float(len(means))
    elif variance <= 0:
        size = float(len(records))
    else:
        size = min(max(len(means) * spread / variance, len(means)), len(records))
    low, high = wilson(min(share * size, size), size)
    return Estimate(share, min(low, share), max(high, share))


def mean_nfe(records: Sequence[Record]) -> Estimate:
    """Mean NFE with a normal interval over per-problem means."""
    return _normal(_problem_means(records, lambda record: float(record.nfe)))


def tokens_per_forward(records: Sequence[Record]) -> float:
    """TPF: the sum of content tokens over the sum of NFE: long completions weigh more."""
    _problem_means(records, lambda record: 0.0)  # refuses an empty set
    return sum(record.tokens for record in records) / sum(record.nfe for record in records)


def seconds_per_sample(records: Sequence[Record]) -> float:
    """Mean decode time: see `Record.seconds`."""
    return _mean(_problem_means(records, lambda record: record.seconds))


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, c of them right, hold a right one (Chen et al. 2021).

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k({n}, {c}, {k}): need 0 <= c <= n and 1 <= k <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def summarise(records: Iterable[Record]) -> list[Summary]:
    """One summary per (task, model, planner, block_length), in the order of first appearance.

    Raises:
        ValueError: where a group mixes task versions, lengths, temperatures or caches, which are
        not comparable.
    """
    groups: dict[tuple[str, str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.task, record.model, record.planner, record.block_length].append(record)
    return [_summary(group) for group in groups.values()]


def _summary(group: Sequence[Record]) -> Summary:
    first = group[0]
    settings = {(one.version, one.length, one.temperature, one.cache) for one in group}
    if len(settings) > 1:
        raise ValueError(
            f"records of {first.planner} on {first.task} mix (version, length, temperature, cache) "
            f"{' and '.join(map(str, sorted(settings)))}; summarise or label them apart"
        )
    return Summary(
        task=first.task,
        model=first.model,
        planner=first.planner,
        block_length=first.block_length,
        num_records=len(group),
        num_problems=len({(one.task, one.id) for one in group}),
        accuracy=accuracy(group),
        nfe=mean_nfe(group),
        tpf=tokens_per_forward(group),
        seconds=seconds_per_sample(group),
    )


def paired_difference(a: Sequence[Record], b: Sequence[Record]) -> Paired:
    """Accuracy of `a` minus accuracy of `b` over the (task, id, seed) that both have.

    The interval is Bonett and Price's (2012) for paired proportions: normal, after adding one problem
    that only `a` solves and one that only `b` solves, so it has a width even where the two agree
    everywhere. With several seeds it uses per-problem mean differences, and the added problems count
    ±sqrt(r), where r is the mean square of those means over the mean square of single differences.

    Raises:
        ValueError: if no sample is in both, or the task versions differ.
    """
    problems = _pairs(a, b, lambda record: float(record.correct))
    samples = [[left - right for left, right in pairs] for pairs in problems]
    means = [_mean(one) for one in samples]
    value = _mean(means)
    single = _mean([_mean([one * one for one in differences]) for differences in samples])
    shrinkage = _mean([one * one for one in means]) / single if single else 1.0
    size = len(means) + 2
    centre = sum(means) / size
    variance = (sum(one * one for one in means) + 2 * shrinkage) / size - centre * centre
    half = Z_95 * math.sqrt(variance / size)
    estimate = Estimate(value, max(-1.0, centre - half), min(1.0, centre + half))
    return Paired(estimate, sum(map(len, samples)), len(means))


def paired_nfe_ratio(a: Sequence[Record], b: Sequence[Record]) -> Paired:
    """Mean NFE of `a` over mean NFE of `b` on common (task, id, seed); below 1, `a` is faster.

    The interval is normal for the logarithm (delta method over problems).

    Raises:
        ValueError: if no sample is in both, or the task versions differ.
    """
    problems = _pairs(a, b, lambda record: float(record.nfe))
    num_pairs, n = sum(map(len, problems)), len(problems)
    means_a = [_mean([left for left, _ in pairs]) for pairs in problems]
    means_b = [_mean([right for _, right in pairs]) for pairs in problems]
    ratio = _mean(means_a) / _mean(means_b)
    if n == 1:
        return Paired(Estimate(ratio, math.nan, math.nan), num_pairs, n)
    residuals = [
        left / _mean(means_a) - right / _mean(means_b) for left, right in zip(means_a, means_b, strict=True)
    ]
    error = math.sqrt(sum(one * one for one in residuals) / (n * (n - 1)))
    factor = math.exp(Z_95 * error)
    return Paired(Estimate(ratio, ratio / factor, ratio * factor), num_pairs, n)


def _pairs(
    a: Sequence[Record], b: Sequence[Record], measure: Callable[[Record], float]
) -> list[list[tuple[float, float]]]:
    """Per problem, what both sets measured with each common seed."""
    versions = {(one.task, one.version) for one in (*a, *b)}
    if len(versions) > len({task for task, _ in versions}):
        raise ValueError(
            f"the two record sets differ in task version: {sorted(versions)}; evaluate both again"
        )
    left, right = ({(one.task, one.id, one.seed): measure(one) for one in side} for side in (a, b))
    problems: dict[Cluster, list[tuple[float, float]]] = defaultdict(list)
    for key in left:
        if key in right:
            problems[key[:2]].append((left[key], right[key]))
    if not problems:
        raise ValueError(
            "the two record sets share no (task, id, seed); evaluate the same problems and seeds"
        )
    return list(problems.values())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _problem_means(records: Sequence[Record], measure: Callable[[Record], float]) -> list[float]:
    """One mean per problem, in the order of first appearance."""
    if not records:
        raise ValueError("no records to measure")
    values: dict[Cluster, list[float]] = defaultdict(list)
    for record in records:
        values[record.task, record.id].append(measure(record))
    return [_mean(one) for one in values.values()]


def _normal(means: Sequence[float]) -> Estimate:
    value = _mean(means)
    if len(means) == 1:
        return Estimate(value, math.nan, math.nan)
    variance = sum((mean - value) ** 2 for mean in means) / (len(means) - 1)
    half = Z_95 * math.sqrt(variance / len(means))
    return Estimate(value, value - half, value + half)
