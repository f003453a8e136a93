"""A sample of keys, by seed, in bounded memory; and the distinct texts in it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.sampling import KeySample, distinct_texts


def kept(keys: list[str], size: int, seed: int = 0) -> list[str]:
    sample: KeySample[str] = KeySample(size, seed=seed)
    for key in keys:
        sample.offer(key.encode(), 1, key)
    return sample.contents()


def test_everything_is_kept_while_there_is_room() -> None:
    sample: KeySample[str] = KeySample(3, seed=0)
    for key in "abcab":
        sample.offer(key.encode(), 1, key)
    assert sorted(sample.contents()) == ["a", "b", "c"]
    assert (sample.num_offered, sample.is_whole) == (5, True)
    sample.offer(b"d", 1, "d")
    assert (len(sample.contents()), sample.is_whole) == (3, False)


@given(st.permutations([f"{number % 60}" for number in range(100)]))
def test_neither_order_nor_repetition_changes_the_sample(keys: list[str]) -> None:
    assert kept(keys, 20) == kept(sorted(set(keys)), 20)


def test_every_key_is_as_likely_as_any_other() -> None:
    keys = [str(number) for number in range(40)]
    drawn = Counter(key for seed in range(400) for key in kept(keys, 10, seed))
    assert len(drawn) == 40
    assert all(60 < count < 140 for count in drawn.values())


def test_seeds_choose_differently_and_equal_seeds_equally() -> None:
    keys = [str(number) for number in range(100)]
    assert kept(keys, 10, 1) == kept(keys, 10, 1) != kept(keys, 10, 2)


def test_samples_of_two_collections_agree_on_what_both_hold() -> None:
    keys = [str(number) for number in range(100)]
    assert set(kept(keys, 50)) <= set(kept(keys[:70], 50)) | set(keys[70:])


@given(st.permutations([(version, None if version in {2, 7} else f"state {version}") for version in range(9)]))
def test_the_newest_state_of_a_key_stays(states: list[tuple[int, str | None]]) -> None:
    sample: KeySample[str] = KeySample(5, seed=0)
    for version, content in states[:-1]:
        sample.offer(b"a", version, content)
    newest = max(states[:-1])[0]
    assert sample.contents() == ([] if newest in {2, 7} else [f"state {newest}"])


def test_of_equal_versions_the_first_stays() -> None:
    sample: KeySample[str] = KeySample(5, seed=0)
    for content in ("first", "second"):
        sample.offer(b"a", 1, content)
    assert sample.contents() == ["first"]


def test_wanted_keys_are_kept_beside_the_others() -> None:
    keys = [str(number) for number in range(100)]
    sample: KeySample[str] = KeySample(10, seed=0, always=[b"17", b"23", b"absent"])
    for key in keys:
        sample.offer(key.encode(), 1, key)
    found = sample.contents()
    assert {"17", "23"} < set(found)
    assert set(found) - {"17", "23"} == set(kept([key for key in keys if key not in {"17", "23"}], 10))


def test_equal_texts_become_one_and_contradictions_are_counted() -> None:
    found = distinct_texts(
        ["a", "b", "a", "a", "c", "b"],
        {"urgency": [None, "low", "high", "low", "low", "low"], "issue": ["vpn", None, "vpn", None, None, "email"]},
    )
    assert found.rows == (0, 1, 4)
    assert found.labels == {"urgency": ("high", "low", "low"), "issue": ("vpn", "email", None)}
    assert found.contradicted == {"urgency": 1, "issue": 0}
