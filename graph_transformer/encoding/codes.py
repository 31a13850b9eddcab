"""Dictionary codes of one graph, translated into what the model learned from strings.

Codes belong to a graph, vocabularies to a checkpoint: a server's graph numbers its strings differently from the graph
the model was trained on, and keeps adding new ones. Each translator extends itself when it meets a new code.

A string that the graph has never stored comes with its sample: code -1 - k is `unseen[k]`, of this one call, and is
read as the same string would be once it is stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.statistics import ELEMENT_SEPARATOR, Strings

NULL_INDEX, UNSEEN_INDEX, FIRST_INDEX = 0, 1, 2
TEXT_BUCKETS = 64
NGRAM = 3
CACHED_MAX = 65_536
"""Vectors of distinct texts kept (16 MiB at 64 floats each); the cache starts again when it is full."""


class CategoryIndex:
    """Codes of a categorical column to indices: 0 null, 1 unseen in training, then the vocabulary in order."""

    def __init__(self, table: str, column: str, values: Sequence[str], strings: Strings) -> None:
        self.size = FIRST_INDEX + len(values)
        self._table, self._column, self._strings = table, column, strings
        self._vocabulary = {text: FIRST_INDEX + position for position, text in enumerate(values)}
        self._index = np.zeros(1, dtype=np.int64)  # code 0 is null

    def of(self, codes: NDArray[np.int32], unseen: Sequence[str] = ()) -> NDArray[np.int64]:
        """Return int64[n] for int32[n] codes; a negative one is looked up in `unseen`."""
        highest = int(codes.max(initial=0))
        if highest >= len(self._index):
            new = np.arange(len(self._index), highest + 1, dtype=np.int32)
            texts = self._strings(self._table, self._column, new)
            known = [self._of_text(text) for text in texts]
            # Replaced, never changed in place: another thread may be reading the old array.
            self._index = np.concatenate([self._index, np.asarray(known, dtype=np.int64)])
        if codes.min(initial=0) >= 0:
            return self._index[codes]
        index: NDArray[np.int64] = self._index[np.maximum(codes, 0)]
        for at in np.flatnonzero(codes < 0).tolist():
            index[at] = self._of_text(unseen[-1 - int(codes[at])])
        return index

    def _of_text(self, text: str | None) -> int:
        return UNSEEN_INDEX if text is None else self._vocabulary.get(text, UNSEEN_INDEX)


TextVectors = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts -> float32[n, width]."""


class CodeVectors:
    """Codes of a text or multicategorical column to vectors; null is all zeros."""

    def __init__(self, table: str, column: str, strings: Strings, width: int, vectors: TextVectors) -> None:
        """`vectors` turns texts into rows of `width` floats: `ngram_vectors`, `bag_vectors`, a sentence encoder."""
        self.width = width
        self._table, self._column, self._strings, self._vectors = table, column, strings, vectors
        self._cache: dict[int, NDArray[np.float32]] = {0: np.zeros(width, dtype=np.float32)}

    def of(self, codes: NDArray[np.int32], unseen: Sequence[str] = ()) -> NDArray[np.float32]:
        """Return float32[n, width] for int32[n] codes; a negative one is looked up in `unseen` and never kept."""
        found, inverse = np.unique(codes, return_inverse=True)
        distinct = found.tolist()
        cache = self._cache
        new = [code for code in distinct if code not in cache and code >= 0]
        if new:
            if len(cache) + len(new) > CACHED_MAX:
                cache = {0: cache[0], **{code: cache[code] for code in distinct if code in cache}}
            texts = self._strings(self._table, self._column, np.asarray(new, dtype=np.int32))
            cache.update(zip(new, self._of_texts(texts), strict=True))
            self._cache = cache
        told = [code for code in distinct if code < 0]
        once = dict(zip(told, self._of_texts([unseen[-1 - code] for code in told]), strict=True))
        return np.stack([cache[code] if code >= 0 else once[code] for code in distinct])[inverse]

    def _of_texts(self, texts: Sequence[str | None]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        known = [at for at, text in enumerate(texts) if text is not None]
        if known:
            out[known] = self._vectors([text for text in texts if text is not None])
        return out


def bag_vectors(values: Sequence[str]) -> TextVectors:
    """Return what counts the elements of a multicategorical's text by the vocabulary `values`; the last is unseen."""
    vocabulary = {text: position for position, text in enumerate(values)}

    def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), len(values) + 1), dtype=np.float32)
        for row, text in enumerate(texts):
            for element in text.split(ELEMENT_SEPARATOR):
                out[row, vocabulary.get(element, len(values))] += 1.0
        return out

    return vectors


def ngram_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return float32[n, TEXT_BUCKETS] of n texts, `hashed_ngrams` of each."""
    return np.stack([hashed_ngrams(text) for text in texts])


def hashed_ngrams(text: str, buckets: int = TEXT_BUCKETS) -> NDArray[np.float32]:
    """Return float32[buckets] of unit length: counts of the text's character trigrams, hashed the same everywhere."""
    padded = f"\x02{text.lower()}\x03"
    grams = (padded[start : start + NGRAM] for start in range(max(1, len(padded) - NGRAM + 1)))
    hashes = np.fromiter((zlib.crc32(gram.encode()) % buckets for gram in grams), dtype=np.int64)
    counts = np.bincount(hashes, minlength=buckets).astype(np.float32)
    return counts / np.float32(np.linalg.norm(counts))
