"""How well vectors tell a label: by their neighbours' votes, and by the clusters they fall into."""

from dataclasses import dataclass

import numpy as np

from pipeline.quality.estimates import Estimate, Float64, Resampler
from pipeline.quality.labels import Label
from pipeline.quality.neighbours import majority
from pipeline.records.batches import Float32, Int64


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was predicted of texts whose class is known."""

    rows: Int64
    """Texts, (n,)."""
    truth: Int64
    """Their classes, (n,)."""
    predicted: Int64
    """What was predicted, (n,), in codes of the same classes."""
    num_classes: int

    @property
    def correct(self) -> Float32:
        """1 where the prediction is right, (n,)."""
        return np.asarray(self.truth == self.predicted, np.float32)


@dataclass(frozen=True, slots=True)
class Score:
    """How well one set of vectors tells one label."""

    label: str
    num_texts: int
    """Texts that were judged."""
    accuracy: Estimate
    """Share of texts whose neighbours' majority says the text's own class."""
    macro_f1: Estimate
    """Mean over classes of F1, so that a rare class weighs as much as a frequent one."""
    kappa: Estimate
    """(accuracy - chance) / (1 - chance): 0 for predictions that know nothing, 1 for perfect ones."""
    chance: float
    """Accuracy if the predictions were dealt out to the texts at random."""
    v_measure: Estimate | None
    """Agreement of as many clusters as there are classes with the classes, 0 to 1; None where nothing was clustered."""


def predict(neighbours: Int64, rows: Int64, label: Label) -> Outcomes:
    """Returns what the neighbours say of every row's class.

    Args:
        neighbours: Of each of `rows`, places in `rows`, nearest first, (n, k).
        rows: Texts that have a value, (n,), rising.
        label: The label. Rows that are alone in their class vote, and are not judged.
    """
    codes = label.codes[rows]
    predicted = majority(codes[neighbours])
    judged = np.isin(rows, label.scored)
    return Outcomes(rows[judged], codes[judged], predicted[judged], len(label.classes))


def accuracy_replicates(outcomes: Outcomes, resampler: Resampler) -> Float64:
    """Returns the accuracy of each replicate."""
    return resampler.totals(outcomes.rows, outcomes.correct) / _sizes(outcomes.rows, resampler)


def kappa_replicates(outcomes: Outcomes, resampler: Resampler) -> Float64:
    """Returns κ of each replicate: Cohen's, whose chance knows how often each class was said."""
    return _kappa(accuracy_replicates(outcomes, resampler), _chance(outcomes, resampler))


def score(name: str, outcomes: Outcomes, clusters: Int64 | None, resampler: Resampler) -> Score:
    """Returns all figures of a set of vectors and a label.

    Args:
        name: The label's.
        outcomes: Of its rows.
        clusters: A cluster of each of `outcomes.rows`.
        resampler: Draws of the texts.
    """
    accuracy, chance = accuracy_replicates(outcomes, resampler), _chance(outcomes, resampler)
    return Score(
        label=name,
        num_texts=len(outcomes.rows),
        accuracy=Estimate.of(accuracy),
        macro_f1=Estimate.of(_macro_f1(outcomes, resampler)),
        kappa=Estimate.of(_kappa(accuracy, chance)),
        chance=float(chance[0]),
        v_measure=None if clusters is None else Estimate.of(v_measure_replicates(outcomes, clusters, resampler)),
    )


def v_measure_replicates(outcomes: Outcomes, clusters: Int64, resampler: Resampler) -> Float64:
    """Returns the V-measure of each replicate: the harmonic mean of homogeneity and completeness.

    Rosenberg and Hirschberg, "V-Measure", EMNLP 2007, with β = 1. A resample holds fewer distinct texts, in which
    classes and clusters agree more by chance: resamples are moved down by what they lie above the texts on average.
    """
    num_clusters = int(clusters.max()) + 1
    pairs, cells = np.unique(outcomes.truth * num_clusters + clusters, return_inverse=True)
    rows = outcomes.rows
    joint = _entropy(resampler.counts(rows, cells, len(pairs)))
    of_classes = _entropy(resampler.counts(rows, outcomes.truth, outcomes.num_classes))
    of_clusters = _entropy(resampler.counts(rows, clusters, num_clusters))
    shared = of_classes + of_clusters - joint
    # homogeneity = shared / of_classes and completeness = shared / of_clusters, so their harmonic mean is this.
    found = _ratio(2 * shared, of_classes + of_clusters, where_zero=1.0)
    found[1:] -= found[1:].mean() - found[0]
    return np.clip(found, 0, 1)


def confusion(outcomes: Outcomes) -> Int64:
    """Returns how often each class (row) was taken for each class (column)."""
    table = np.zeros((outcomes.num_classes, outcomes.num_classes), np.int64)
    np.add.at(table, (outcomes.truth, outcomes.predicted), 1)
    return table


def _macro_f1(outcomes: Outcomes, resampler: Resampler) -> Float64:
    """Classes that a replicate holds no text of do not count in it."""
    rows, num_classes, right = outcomes.rows, outcomes.num_classes, outcomes.truth == outcomes.predicted
    true = resampler.counts(rows, outcomes.truth, num_classes)
    said = resampler.counts(rows, outcomes.predicted, num_classes)
    both = resampler.counts(rows[right], outcomes.truth[right], num_classes)
    f1 = _ratio(2 * both, true + said, where_zero=0.0)
    return _ratio(f1.sum(axis=0, where=true > 0), (true > 0).sum(axis=0), where_zero=np.nan)


def _chance(outcomes: Outcomes, resampler: Resampler) -> Float64:
    true = resampler.counts(outcomes.rows, outcomes.truth, outcomes.num_classes)
    said = resampler.counts(outcomes.rows, outcomes.predicted, outcomes.num_classes)
    return _ratio((true * said).sum(axis=0), true.sum(axis=0) ** 2, where_zero=np.nan)


def _kappa(accuracy: Float64, chance: Float64) -> Float64:
    return _ratio(accuracy - chance, 1 - chance, where_zero=0.0)


def _sizes(rows: Int64, resampler: Resampler) -> Float64:
    """Texts of each replicate, NaN where it drew none of them."""
    sizes = resampler.totals(rows, np.ones(len(rows), np.float32))
    return np.where(sizes > 0, sizes, np.nan)


def _entropy(counts: Float64) -> Float64:
    """Entropy in nats of the shares that each column's counts make."""
    total = np.maximum(counts.sum(axis=0), 1)
    logs = np.log(counts, out=np.zeros_like(counts), where=counts > 0)
    return np.asarray(np.log(total) - (counts * logs).sum(axis=0) / total)


def _ratio(over: Float64, under: Float64, *, where_zero: float) -> Float64:
    found = np.full(np.shape(over), where_zero)
    np.divide(over, under, out=found, where=np.abs(under) > 1e-12)  # noqa: PLR2004 - zero but for rounding
    return found
