"""Clusters of vectors, as many as a label has classes. Needs scikit-learn."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from pipeline.records.batches import Float32, Int64

MAX_TEXTS = 3_000
"""Vectors that the centres are found on: more would cost time and move them little."""


def find_clusters(vectors: Float32, num_clusters: int, *, seed: int) -> Int64:
    """Returns the cluster of each row by k-means, (n,).

    Args:
        vectors: Unit vectors, (n, d), in an order that says nothing: the centres are found on the first MAX_TEXTS.
        num_clusters: At most so many; fewer where there are fewer rows.
        seed: Equal seeds give equal clusters.
    """
    seen = vectors[:MAX_TEXTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters are no fault
        model = KMeans(min(num_clusters, len(seen)), n_init=3, max_iter=50, random_state=seed).fit(seen)
    return np.asarray(model.predict(vectors), np.int64)
