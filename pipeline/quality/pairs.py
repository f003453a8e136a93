"""Two tasks held against each other: separation and flip rate on a sample that is fair to both labels."""

from dataclasses import dataclass

from pipeline.quality.crossing import Crossing, cross, kappas
from pipeline.quality.estimates import Estimate, Float64, Resampler
from pipeline.quality.evaluation import Flip, PairReport, Separation
from pipeline.quality.labels import Label
from pipeline.quality.triplets import PER_ANCHOR, draw_triplets, find_flips
from pipeline.records.batches import Float32


@dataclass(frozen=True, slots=True)
class Side:
    """A task, its label, and the texts' vectors under its instruction."""

    task: str
    label: Label
    vectors: Float32
    """(num_texts, d)"""


@dataclass(frozen=True, slots=True)
class Pair:
    """What was found, and the figures by replicate that means over pairs are made of."""

    report: PairReport
    differences: tuple[Float64, ...]
    """Of each separation."""
    flip_rate: Float64 | None


def measure_pair(first: Side, second: Side, resampler: Resampler, *, k: int, seed: int) -> Pair:
    """Returns what two instructions make of each other's label.

    Args:
        first: One task.
        second: Another, its vectors of the same texts.
        resampler: Draws of the texts.
        k: Neighbours that vote.
        seed: Equal seeds draw equal samples and triplets.
    """
    crossing = cross(first.label, second.label, seed=seed)
    if crossing.reason is not None:
        return Pair(_report(first, second, crossing, (), None), (), None)
    first_own, first_other = kappas(crossing, first.vectors, resampler, k)
    second_other, second_own = kappas(crossing, second.vectors, resampler, k)
    separations = (
        _separation(first, second, first_own, first_other),
        _separation(second, first, second_own, second_other),
    )
    triplets = draw_triplets(crossing, seed=seed)
    differences = (first_own - first_other, second_own - second_other)
    if not len(triplets.anchors):
        return Pair(_report(first, second, crossing, separations, None), differences, None)
    flips = find_flips(triplets, first.vectors, second.vectors, resampler)
    flip = Flip(
        num_anchors=len(triplets.anchors),
        num_triplets=len(triplets.anchors) * PER_ANCHOR,
        rate=Estimate.of(flips.rate),
        first=Estimate.of(flips.first),
        second=Estimate.of(flips.second),
    )
    return Pair(_report(first, second, crossing, separations, flip), differences, flips.rate)


def _separation(own: Side, other: Side, own_kappa: Float64, other_kappa: Float64) -> Separation:
    return Separation(
        own.task,
        other.task,
        own_kappa=Estimate.of(own_kappa),
        other_kappa=Estimate.of(other_kappa),
        difference=Estimate.of(own_kappa - other_kappa),
    )


def _report(
    first: Side, second: Side, crossing: Crossing, separations: tuple[Separation, ...], flip: Flip | None
) -> PairReport:
    return PairReport(
        first.task,
        second.task,
        num_texts=len(crossing.rows),
        per_cell=crossing.per_cell,
        cramers_v=crossing.cramers_v,
        sample_cramers_v=crossing.sample_cramers_v,
        thin=crossing.thin,
        num_absent=crossing.num_absent,
        reason=crossing.reason,
        separations=separations,
        flip=flip,
    )
