"""What the LoRA loop can learn: labels under their instructions, and pairs of queries and documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from pipeline.quality.labels import Label
from pipeline.records.batches import Int64
from pipeline.tuning.encoder import LoraEncoder, cut
from pipeline.tuning.fold import Fold
from pipeline.tuning.grids import GridSampler
from pipeline.tuning.loss import contrastive_loss, keeping_loss, pair_loss
from pipeline.tuning.query_pairs import PairTexts, QueryPair, score_pairs
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.wordings import PLAIN, Wordings

_NEGATIVES = 4
"""Given negatives of a pair that a batch holds; the other pairs' documents are negatives, too."""


@dataclass(frozen=True, slots=True)
class LabelLesson:
    """Under each task's instruction, texts of one class are to be closer than texts of others."""

    texts: Sequence[str]
    labels: Mapping[str, Label]
    """Of each task, over all texts."""
    train: Int64
    """Texts to learn from."""
    select: Int64
    """Texts that decide which state is kept."""
    wordings: Wordings
    has_plain: bool
    """Whether the model has a form without an instruction."""
    settings: LoraSettings

    def loss(self, encoder: LoraEncoder, number: int, random: np.random.Generator) -> Tensor:
        """See Lesson. Each text of a batch has wordings of its own, so that texts are compared across wordings."""
        settings = self.settings
        rows = GridSampler(list(self.labels.values()), self.train, settings.texts, seed=settings.seed).draw(number)
        texts = [self.texts[row] for row in rows]
        if self.has_plain and random.random() < settings.plain_share:
            return _keeping(encoder, texts, settings, random)
        prompts = [[self.wordings.draw(task, random) for task in self.labels] for _ in texts]
        found = encoder.rows_each(texts, prompts)
        losses = []
        for part, (task, label) in zip(found, self.labels.items(), strict=True):
            codes = torch.from_numpy(label.codes[rows]).to(part.device)
            widths = _widths(encoder, task, part)
            losses += [
                contrastive_loss(cut(part, width, encoder.spec), codes, settings.temperature) / len(widths)
                for width in widths
            ]
        return torch.stack(losses).sum() / len(self.labels)

    def score(self, encoder: LoraEncoder) -> float:
        """See Lesson: mean of separation and flip rate, or the own κ."""
        vectors = encoder.embed([self.texts[row] for row in self.select], list(self.labels))
        if not all(np.isfinite(rows).all() for rows in vectors.values()):
            return float("nan")
        return Fold(self.labels, self.select, seed=self.settings.seed).score(vectors).value


@dataclass(frozen=True, slots=True)
class PairLesson:
    """Under its instruction, a query is to be closer to its positives than to any other document."""

    data: PairTexts
    train: Int64
    """Pairs to learn from."""
    select: Int64
    """Pairs that decide which state is kept."""
    has_plain: bool
    settings: LoraSettings

    def loss(self, encoder: LoraEncoder, number: int, random: np.random.Generator) -> Tensor:
        """See Lesson. A batch holds pairs of one task: their documents are embedded once, for all of its queries."""
        settings = self.settings
        draw = np.random.default_rng([settings.seed, number])
        pairs = self._draw(draw)
        positives = [int(draw.choice(pair.positives)) for pair in pairs]
        given = [draw.permutation(pair.negatives)[:_NEGATIVES].tolist() for pair in pairs]
        documents = list(dict.fromkeys([*positives, *(place for some in given for place in some)]))
        texts = [self.data.documents[place] for place in documents]
        if self.has_plain and random.random() < settings.plain_share:
            return _keeping(encoder, texts, settings, random)
        (found,) = encoder.rows(texts, [pairs[0].document_prompt])
        asked = _asked(encoder, pairs)
        own = torch.tensor([documents.index(place) for place in positives], device=found.device)
        wanted = torch.tensor([[place in pair.positives for place in documents] for pair in pairs], device=found.device)
        widths = _widths(encoder, pairs[0].document_prompt, found)
        losses = [
            pair_loss(
                cut(asked, width, encoder.spec), cut(found, width, encoder.spec), own, wanted, settings.temperature
            )
            for width in widths
        ]
        return torch.stack(losses).mean()

    def score(self, encoder: LoraEncoder) -> float:
        """See Lesson: nDCG@10."""
        found = score_pairs(encoder, self.data, self.select, seed=self.settings.seed)
        return float("nan") if found is None else found.value

    def _draw(self, draw: np.random.Generator) -> list[QueryPair]:
        """Returns pairs of the task of a pair that is drawn first."""
        task = self.data.pairs[int(draw.choice(self.train))].task
        of_task = [row for row in self.train.tolist() if self.data.pairs[row].task == task]
        size = min(self.settings.texts, len(of_task))
        return [self.data.pairs[row] for row in draw.choice(of_task, size, replace=False).tolist()]


def _asked(encoder: LoraEncoder, pairs: Sequence[QueryPair]) -> Tensor:
    """Returns the queries' rows in order, each under its own instruction."""
    parts, order = [], []
    for prompt in dict.fromkeys(pair.query_prompt for pair in pairs):
        is_chosen = [pair.query_prompt == prompt for pair in pairs]
        parts += encoder.rows([pair.query for pair in compress(pairs, is_chosen)], [prompt])
        order += list(compress(range(len(pairs)), is_chosen))
    return torch.cat(parts)[torch.from_numpy(np.argsort(order))]


def _keeping(encoder: LoraEncoder, texts: list[str], settings: LoraSettings, random: np.random.Generator) -> Tensor:
    with encoder.untrained():
        (reference,) = encoder.rows(texts, [PLAIN])
    encoder.train(seed=int(random.integers(2**31)))
    return keeping_loss(encoder.rows(texts, [PLAIN])[0], reference, settings.temperature)


def _widths(encoder: LoraEncoder, prompt: str, rows: Tensor) -> list[int]:
    """Whole vectors and, where the task cuts them, what is left."""
    return sorted({encoder.dimension(prompt), rows.shape[1]})
