"""A sample of distinct texts, by seed, in bounded memory."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.sampling import Sample


def kept(texts: list[str], size: int, seed: int = 0) -> list[str]:
    sample: Sample[str] = Sample(size, seed=seed)
    for text in texts:
        sample.offer(text.encode(), {}, text)
    return [found.content for found in sample.texts()]


def test_everything_is_kept_while_there_is_room() -> None:
    sample: Sample[str] = Sample(3, seed=0)
    for text in "abcab":
        sample.offer(text.encode(), {}, text)
    assert sorted(found.content for found in sample.texts()) == ["a", "b", "c"]
    assert (sample.num_offered, sample.is_whole) == (5, True)
    sample.offer(b"d", {}, "d")
    assert (len(sample.texts()), sample.is_whole) == (3, False)


@given(st.permutations([f"{number % 60}" for number in range(100)]))
def test_neither_order_nor_repetition_changes_the_sample(texts: list[str]) -> None:
    assert kept(texts, 20) == kept(sorted(set(texts)), 20)


def test_every_text_is_as_likely_as_any_other() -> None:
    texts = [str(number) for number in range(40)]
    drawn = Counter(text for seed in range(400) for text in kept(texts, 10, seed))
    assert len(drawn) == 40
    assert all(60 < count < 140 for count in drawn.values())


def test_seeds_choose_differently_and_equal_seeds_equally() -> None:
    texts = [str(number) for number in range(100)]
    assert kept(texts, 10, 1) == kept(texts, 10, 1) != kept(texts, 10, 2)


def test_samples_of_two_collections_agree_on_what_both_hold() -> None:
    texts = [str(number) for number in range(100)]
    assert set(kept(texts, 50)) <= set(kept(texts[:70], 50)) | set(texts[70:])


def test_equal_texts_are_counted_and_contradictions_noted() -> None:
    sample: Sample[int] = Sample(5, seed=0)
    for number, (text, urgency, issue) in enumerate(
        [("a", "low", None), ("a", "high", "vpn"), ("a", "low", "vpn"), ("a", None, None), ("b", None, "vpn")]
    ):
        sample.offer(text.encode(), {"urgency": urgency, "issue": issue}, number)
    found = {text.content: text for text in sample.texts()}
    assert found[0].num_rows == 4
    assert found[0].labels == {"urgency": "low", "issue": "vpn"}
    assert found[0].contradicted == {"urgency"}
    assert found[4].contradicted == set()
