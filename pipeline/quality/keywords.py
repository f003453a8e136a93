"""What words alone tell of a label: the figure an instruction has to beat. Needs scikit-learn."""

import warnings
from collections.abc import Sequence

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from pipeline.quality.labels import Label
from pipeline.quality.scores import Outcomes

FOLDS = 5
"""Parts of the texts; each is predicted from the others."""


def predict_from_words(texts: Sequence[str], label: Label, *, seed: int, threads: int = 2) -> Outcomes | None:
    """Returns what TF-IDF and a logistic regression, trained on a label, say of texts they have not seen.

    Words are what the texts' alphabets set apart by blanks and punctuation; for Chinese or Japanese this says little.

    Args:
        texts: Of every row.
        label: Its scored rows are predicted.
        seed: Equal seeds give equal folds.
        threads: Folds trained at once.

    Returns:
        None if no word occurs in two texts.
    """
    rows = label.scored
    truth = label.codes[rows]
    try:
        # Counted over all texts at once: how rare a word is needs no label, so nothing leaks from the folds.
        words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform([texts[row] for row in rows])
    except ValueError:
        return None
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(truth).max())), shuffle=True, random_state=seed)
    # SAGA at this tolerance is as accurate on short texts as L-BFGS at its own, in a tenth of the time.
    model = LogisticRegression(C=10, solver="saga", tol=1e-2, max_iter=100, random_state=seed)
    with warnings.catch_warnings(), joblib.parallel_config("threading", n_jobs=threads):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The least populated class")
        predicted = cross_val_predict(model, words, truth, cv=folds)
    return Outcomes(rows, truth, np.asarray(predicted, np.int64), len(label.classes))
