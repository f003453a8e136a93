"""What training minimises: what belongs together closer than what does not, and plain texts where they were."""

import torch
from torch import Tensor, nn


def contrastive_loss(rows: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Returns the supervised contrastive loss of texts under one instruction, a scalar.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, with one change: the other positives of an
    anchor are left out of the denominator, so texts of one class never push each other away.

    Args:
        rows: Unit vectors, (n, d).
        codes: Class of each text under this task, (n,), -1 for none.
        temperature: Divides similarities.

    Returns:
        The mean over all pairs of one class, each anchor weighing the same; 0 where there is no pair or no negative.
    """
    similar = rows @ rows.T / temperature
    known = codes >= 0
    same = (codes[:, None] == codes[None]) & known[:, None] & known[None]
    negative = ~same & known[:, None] & known[None]
    positive = same & ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    anchors = positive.any(dim=1) & negative.any(dim=1)
    if not anchors.any():
        return rows.sum() * 0
    similar, positive, negative = similar[anchors], positive[anchors], negative[anchors]
    against = similar.masked_fill(~negative, float("-inf")).logsumexp(dim=1, keepdim=True)
    losses = torch.logaddexp(similar, against) - similar
    return ((losses * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def pair_loss(queries: Tensor, documents: Tensor, own: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Returns the mean cross-entropy of each query's own document among those that it should not find (InfoNCE).

    Args:
        queries: Unit vectors, (n, d).
        documents: Unit vectors, (m, d).
        own: Place of the document that each query is to find now, (n,).
        wanted: Whether a document is a positive of a query, (n, m); its other positives are no negatives.
        temperature: Divides similarities.
    """
    similar = queries @ documents.T / temperature
    itself = nn.functional.one_hot(own, len(documents)).bool()
    return nn.functional.cross_entropy(similar.masked_fill(wanted & ~itself, float("-inf")), own)


def keeping_loss(rows: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Returns how far the neighbourhoods of plain texts have moved from those of the untrained model, a scalar.

    The Kullback-Leibler divergence between each text's similarities to the others, as distributions.

    Args:
        rows: Unit vectors of the model in training, (n, d), n of at least 2.
        reference: Those of the untrained model, (n, d).
        temperature: Divides similarities.
    """
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    now, before = (
        (part @ part.T / temperature).masked_fill(itself, -1e4).log_softmax(dim=1) for part in (rows, reference)
    )
    return nn.functional.kl_div(now, before, reduction="batchmean", log_target=True)
