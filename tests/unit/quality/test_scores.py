"""Scores are those of scikit-learn, on the texts as they are and on every resample."""

import numpy as np
import pytest
from sklearn import metrics

from pipeline.quality.clustering import find_clusters
from pipeline.quality.estimates import Resampler
from pipeline.quality.keywords import Words
from pipeline.quality.neighbours import find_neighbours
from pipeline.quality.scores import (
    Outcomes,
    Score,
    VoteTally,
    confusion,
    predict,
    score,
    v_measure_replicates,
)
from pipeline.records.batches import Int64
from tests.unit.quality.made import around, label, noise

ROWS = np.arange(300)
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 4, 300)
SAID = np.where(RANDOM.random(300) < 0.6, TRUTH, RANDOM.integers(0, 4, 300))
CLUSTERS = np.where(RANDOM.random(300) < 0.7, TRUTH % 3, RANDOM.integers(0, 6, 300))
OUTCOMES = Outcomes(ROWS, TRUTH, SAID, 4)


def resampler(replicates: int = 20) -> Resampler:
    return Resampler(300, replicates=replicates, seed=0)


def figures(outcomes: Outcomes, clusters: Int64 | None = None) -> Score:
    v_measure = None if clusters is None else v_measure_replicates(outcomes, clusters, resampler())
    return score("l", VoteTally.of(outcomes, resampler()), v_measure)


def test_figures_are_those_of_the_reference() -> None:
    found = figures(OUTCOMES, CLUSTERS)
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(TRUTH, SAID))
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(TRUTH, SAID, average="macro"))
    assert found.kappa.value == pytest.approx(metrics.cohen_kappa_score(TRUTH, SAID))
    assert found.kappa.value == pytest.approx((found.accuracy.value - found.chance) / (1 - found.chance))
    assert found.v_measure is not None
    assert found.v_measure.value == pytest.approx(metrics.v_measure_score(TRUTH, CLUSTERS))


def test_each_replicate_is_the_reference_on_texts_repeated_as_drawn() -> None:
    draws = resampler()
    times = draws.counts(ROWS, ROWS, 300).astype(int)
    for replicate in (1, 7, 20):
        drawn = np.repeat(ROWS, times[:, replicate])
        kappa = VoteTally.of(OUTCOMES, draws).kappa[replicate]
        assert kappa == pytest.approx(metrics.cohen_kappa_score(TRUTH[drawn], SAID[drawn]))


def test_v_measures_of_resamples_are_the_references_moved_to_that_of_the_texts() -> None:
    draws = resampler()
    times = draws.counts(ROWS, ROWS, 300).astype(int)
    drawn = [np.repeat(ROWS, times[:, replicate]) for replicate in range(1, 21)]
    plain = np.array([metrics.v_measure_score(TRUTH[rows], CLUSTERS[rows]) for rows in drawn])
    found = v_measure_replicates(OUTCOMES, CLUSTERS, draws)
    assert found[1:] == pytest.approx(plain - plain.mean() + found[0])


def test_always_the_same_answer_has_no_kappa_whatever_its_accuracy() -> None:
    truth = np.where(ROWS < 270, 0, 1)
    found = figures(Outcomes(ROWS, truth, np.zeros(300, np.int64), 2))
    assert found.accuracy.value == 0.9
    assert found.kappa.value == 0
    assert found.v_measure is None


def test_confusion_counts_truth_by_prediction() -> None:
    assert np.array_equal(confusion(OUTCOMES), metrics.confusion_matrix(TRUTH, SAID))


def test_a_text_is_judged_by_the_others() -> None:
    known = label("l", TRUTH)
    near = predict(find_neighbours(around(known.codes), 5).rows, ROWS, known)
    assert figures(near).accuracy.value == 1
    far = predict(find_neighbours(noise(300), 5).rows, ROWS, known)
    assert abs(figures(far).kappa.value) < 0.12


def test_unlabelled_rows_have_no_say_and_lone_rows_are_not_judged() -> None:
    codes = TRUTH.copy()
    codes[:40] = -1
    codes[40] = 9
    known = label("l", codes)
    outcomes = predict(find_neighbours(around(known.codes + 1)[known.rows], 5).rows, known.rows, known)
    assert outcomes.rows.tolist() == list(range(41, 300))


def test_clusters_are_found_by_seed_and_never_more_than_rows() -> None:
    codes = label("l", TRUTH).codes
    vectors = around(codes)
    clusters = find_clusters(vectors, 4, seed=0)
    assert metrics.v_measure_score(codes, clusters) == pytest.approx(1)
    assert np.array_equal(clusters, find_clusters(vectors, 4, seed=0))
    assert len(set(find_clusters(vectors[:6], 50, seed=0).tolist())) <= 6


def test_words_tell_a_label_that_is_in_the_words() -> None:
    known = label("l", TRUTH)
    found = Words([f"word{code} and others" for code in TRUTH], seed=0).predict(known)
    assert found is not None
    assert figures(found).accuracy.value == 1
    shuffled = Words([f"word{code}" for code in SAID[RANDOM.permutation(300)]], seed=0).predict(known)
    assert shuffled is not None
    assert abs(figures(shuffled).kappa.value) < 0.15


def test_words_are_predicted_from_texts_that_were_not_trained_on() -> None:
    # Each text has a word that only it and one of another class have: learnt by heart, it would give the answer away.
    codes = np.repeat(np.arange(2), 50)
    texts = [f"pair{row % 50}" for row in range(100)]
    found = Words(texts, seed=0).predict(label("l", codes))
    assert found is not None
    assert found.correct.mean() < 0.5


def test_texts_without_words_in_common_say_nothing() -> None:
    assert Words([f"only{row}" for row in range(300)], seed=0).predict(label("l", TRUTH)) is None


def test_words_of_thin_classes_are_judged_too() -> None:
    codes = np.array([0] * 20 + [1] * 3)
    found = Words([f"word{code}" for code in codes], seed=0).predict(label("l", codes))
    assert found is not None
    assert found.rows.tolist() == list(range(23))
