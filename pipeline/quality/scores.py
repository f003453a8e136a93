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


@dataclass(frozen=True, slots=True)
class VoteTally:
    """Outcomes counted over each replicate, by class; what follows from them has one value a replicate."""

    num_texts: int
    true: Float64
    """Texts of each class, (num_classes, num_replicates)."""
    said: Float64
    """Texts for which each class was predicted."""
    right: Float64
    """Texts of each class for which it was predicted."""

    @classmethod
    def of(cls, outcomes: Outcomes, resampler: Resampler) -> "VoteTally":
        """Counts outcomes."""
        rows, num_classes, right = outcomes.rows, outcomes.num_classes, outcomes.truth == outcomes.predicted
        return cls(
            len(rows),
            true=resampler.counts(rows, outcomes.truth, num_classes),
            said=resampler.counts(rows, outcomes.predicted, num_classes),
            right=resampler.counts(rows[right], outcomes.truth[right], num_classes),
        )

    @property
    def accuracy(self) -> Float64:
        """Share of right predictions; NaN where a replicate drew none of the texts."""
        return _ratio(self.right.sum(axis=0), self.true.sum(axis=0), where_zero=np.nan)

    @property
    def chance(self) -> Float64:
        """Accuracy of the same predictions, dealt out at random."""
        return _ratio((self.true * self.said).sum(axis=0), self.true.sum(axis=0) ** 2, where_zero=np.nan)

    @property
    def kappa(self) -> Float64:
        """Cohen's κ: its chance knows how often each class was said."""
        return _ratio(self.accuracy - self.chance, 1 - self.chance, where_zero=0.0)

    @property
    def macro_f1(self) -> Float64:
        """Mean of F1 over the classes of which a replicate holds a text."""
        f1 = _ratio(2 * self.right, self.true + self.said, where_zero=0.0)
        return _ratio(f1.sum(axis=0, where=self.true > 0), (self.true > 0).sum(axis=0), where_zero=np.nan)


def score(name: str, tally: VoteTally, v_measure: Float64 | None) -> Score:
    """Returns all figures of a set of vectors and a label.

    Args:
        name: The label's.
        tally: Of its outcomes.
        v_measure: By replicate.
    """
    return Score(
        label=name,
        num_texts=tally.num_texts,
        accuracy=Estimate.of(tally.accuracy),
        macro_f1=Estimate.of(tally.macro_f1),
        kappa=Estimate.of(tally.kappa),
        chance=float(tally.chance[0]),
        v_measure=None if v_measure is None else Estimate.of(v_measure),
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


def _entropy(counts: Float64) -> Float64:
    """Entropy in nats of the shares that each column's counts make."""
    total = np.maximum(counts.sum(axis=0), 1)
    logs = np.log(counts, out=np.zeros_like(counts), where=counts > 0)
    return np.asarray(np.log(total) - (counts * logs).sum(axis=0) / total)


def _ratio(over: Float64, under: Float64, *, where_zero: float) -> Float64:
    is_zero = np.abs(under) < 1e-12  # noqa: PLR2004 - zero but for rounding
    found = np.full(np.shape(over), where_zero)
    np.divide(over, under, out=found, where=~is_zero)
    return found
