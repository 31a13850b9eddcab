from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.encoding import codes
from graph_transformer.encoding.codes import (
    NULL_INDEX,
    TEXT_BUCKETS,
    UNSEEN_INDEX,
    CategoryIndex,
    CodeVectors,
    bag_vectors,
    hashed_ngrams,
    ngram_vectors,
)


class Dictionary:
    """A graph's dictionary that counts how often it is asked."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.asked = texts, 0

    def __call__(self, table: str, column: str, asked: NDArray[np.int32]) -> Sequence[str | None]:
        """Texts of codes."""
        self.asked += len(asked)
        return [self.texts[code - 1] if 0 < code <= len(self.texts) else None for code in asked.tolist()]


def codes_of(*values: int) -> NDArray[np.int32]:
    """Codes as the sampler gives them."""
    return np.array(values, dtype=np.int32)


def test_the_same_text_is_the_same_category_in_any_graph() -> None:
    """Two graphs number their strings differently; the index follows the string."""
    one = CategoryIndex("t", "c", ["de", "fr"], Dictionary(["de", "fr"]))
    other = CategoryIndex("t", "c", ["de", "fr"], Dictionary(["it", "fr", "de"]))
    assert one.of(codes_of(1, 2)).tolist() == other.of(codes_of(3, 2)).tolist()


def test_null_and_unseen_are_categories_of_their_own() -> None:
    """Null is not unseen, and a text that training did not have is no category it had."""
    index = CategoryIndex("t", "c", ["de"], Dictionary(["de", "xx"]))
    assert index.of(codes_of(0, 1, 2)).tolist() == [NULL_INDEX, 2, UNSEEN_INDEX]


def test_a_dictionary_may_grow_while_serving() -> None:
    """A code that appears later is looked up then, once."""
    dictionary = Dictionary(["de"])
    index = CategoryIndex("t", "c", ["de", "fr"], dictionary)
    assert index.of(codes_of(1)).tolist() == [2]
    dictionary.texts.append("fr")
    assert index.of(codes_of(2, 2, 1)).tolist() == [3, 3, 2]
    asked = dictionary.asked
    index.of(codes_of(2, 1))
    assert dictionary.asked == asked


def test_a_string_no_dictionary_has_is_looked_up_by_itself() -> None:
    """A negative code names an event's own string: its category if training had it, else unseen; any number of them."""
    index = CategoryIndex("t", "c", ["de", "fr"], Dictionary(["de"]))
    strings = ["fr", "xx", "de", "a", "b", "fr"]
    found = index.of(codes_of(1, -1, 0, -2, -3, -6), strings)
    assert found.tolist() == [2, 3, NULL_INDEX, UNSEEN_INDEX, 2, 3]
    assert index.of(codes_of(-1), ["xx"]).tolist() == [UNSEEN_INDEX]


def reader(texts: list[str], values: list[str] | None = None) -> CodeVectors:
    """Reads texts by their n-grams, or as bags of the vocabulary."""
    if values is None:
        return CodeVectors("t", "c", Dictionary(texts), TEXT_BUCKETS, ngram_vectors)
    return CodeVectors("t", "c", Dictionary(texts), len(values) + 1, bag_vectors(values))


def test_an_encoder_reads_each_text_once() -> None:
    """A sentence encoder is given the new texts of a call together, and never a text it has read or a null."""
    asked: list[list[str]] = []

    def encoder(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    vectors = CodeVectors("t", "c", Dictionary(["one", "three"]), 2, encoder)
    assert vectors.of(codes_of(2, 0, 1, 2)).tolist() == [[5, 1], [0, 0], [3, 1], [5, 1]]
    assert vectors.of(codes_of(1, -1), ["seven"]).tolist() == [[3, 1], [5, 1]]
    assert asked == [["one", "three"], ["seven"]]


@pytest.mark.parametrize("values", [None, ["a", "b"]])
def test_vectors_of_strings_no_dictionary_has_are_those_of_stored_ones(values: list[str] | None) -> None:
    """Texts and bags under negative codes have the vectors of stored ones, and the next sample's are its own."""
    texts = ["a\x1fz", "b", "", "a"]
    stored = reader(texts, values).of(codes_of(1, 2, 3, 4))
    vectors = reader([], values)
    assert np.array_equal(vectors.of(codes_of(-1, -2, -3, -4), texts), stored)
    assert np.array_equal(vectors.of(codes_of(-1, 0, -1), ["b"]), np.stack([stored[1], 0 * stored[1], stored[1]]))
    assert set(vectors._cache) == {0}


def test_bags_count_their_elements() -> None:
    """Each known element has its place, all others share the last, null is empty."""
    vectors = reader(["a\x1fb", "b\x1fz"], ["a", "b"])
    assert vectors.of(codes_of(1, 0, 2)).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]


def test_similar_texts_have_similar_vectors() -> None:
    """One changed letter moves a text less than other words do; case does not matter."""
    first, typo, other = (hashed_ngrams(text) for text in ("Payment refused", "payment refuSSed", "new shoes, blue"))
    assert np.dot(first, typo) > 0.7
    assert np.dot(first, other) < 0.3
    assert np.linalg.norm(first) == pytest.approx(1.0)
    assert np.array_equal(hashed_ngrams("ABC"), hashed_ngrams("abc"))


@pytest.mark.parametrize("text", ["", "a", "é", "ab"])
def test_short_texts_have_vectors_too(text: str) -> None:
    """Texts shorter than an n-gram do not vanish."""
    assert np.linalg.norm(hashed_ngrams(text)) == pytest.approx(1.0)


def test_the_cache_of_vectors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More distinct texts than the cache holds still give the right vectors, and memory stays bounded."""
    monkeypatch.setattr(codes, "CACHED_MAX", 8)
    texts = [f"text number {n}" for n in range(50)]
    vectors = reader(texts)
    for start in range(0, 50, 5):
        found = vectors.of(np.arange(start + 1, start + 6, dtype=np.int32))
        assert np.allclose(found, np.stack([hashed_ngrams(text) for text in texts[start : start + 5]]))
    assert len(vectors._cache) <= 8
