"""What words alone tell of a label: the figure an instruction has to beat. Needs scikit-learn."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from pipeline.quality.labels import Label
from pipeline.quality.scores import Outcomes
from pipeline.records.batches import Int64

FOLDS = 5
"""Parts of the texts; each is predicted from the others."""


class Words:
    """The words of some texts, weighed by how rare they are.

    Words are what the texts' alphabets set apart by blanks and punctuation; of Chinese or Japanese this says little.
    """

    def __init__(self, texts: Sequence[str], *, seed: int, threads: int = 2) -> None:
        """Counts words. Equal seeds give equal folds; `threads` folds are trained at once."""
        self._seed = seed
        self._threads = threads
        try:
            # Over all texts at once: how rare a word is needs no label, so nothing leaks from the folds.
            self._weights = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
        except ValueError:
            self._weights = None

    def predict(self, label: Label) -> Outcomes | None:
        """Returns what a logistic regression, trained on a label, says of the texts it has not seen.

        The label's scored rows are predicted. Returns None if no word occurs in two texts.
        """
        if self._weights is None:
            return None
        rows = label.scored
        truth = label.codes[rows]
        folds = StratifiedKFold(min(FOLDS, int(np.bincount(truth).max())), shuffle=True, random_state=self._seed)
        # SAGA at this tolerance is as accurate on short texts as L-BFGS at its own, in a tenth of the time.
        model = LogisticRegression(C=10, solver="saga", tol=1e-2, max_iter=100, random_state=self._seed)
        weights, predicted = self._weights[rows], np.empty(len(rows), np.int64)

        def predict_fold(fold: tuple[Int64, Int64]) -> None:
            train, test = fold
            predicted[test] = clone(model).fit(weights[train], truth[train]).predict(weights[test])

        with warnings.catch_warnings(), ThreadPoolExecutor(self._threads) as threads:
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", message="The least populated class")
            list(threads.map(predict_fold, folds.split(weights, truth)))
        return Outcomes(rows, truth, predicted, len(label.classes))
