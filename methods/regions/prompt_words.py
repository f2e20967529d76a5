"""Finding the words of a prompt among its tokens, for whatever text encoders a CLIP has."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import uuid4

import torch
from comfy.sd import CLIP

from .reader import CONDITION
from .words import Words

POOLED = ("l", "g")  # CLIP's encoders, whose tokens only some models take beside their pooled output
UNSPACED = "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]"  # Chinese, Japanese, Korean
Token = Any  # a number, or an embedding's vector


def words_of(clip: CLIP, text: str, names: Sequence[str], layer: float | None) -> tuple[Words, list[list[Any]]]:
    """The words' tokens, and the prompt's conditioning, in which they are.

    Raises:
        ValueError: a word that is not in the prompt.
    """
    if not names:
        raise ValueError('words: there are none. Give words of the prompt, such as "bear, grass".')
    tokens = clip.tokenize(text)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    length = conditioning[0][0].shape[1]
    prompt, empty = _flat(tokens), _flat(clip.tokenize(""))
    # Some encoders read only what is in quotation marks.
    encoders = {key: _content(prompt[key], empty[key]) for key in prompt if key in empty and key != "byt5"}
    offsets = _offsets({key: len(prompt[key]) for key in encoders}, encoders, length)

    def alone(surfaces: Iterable[str]) -> set[int]:
        """Places of a word as it is spelled alone, with and without a space before: tokenizers tell them apart."""
        found: set[int] = set()
        for spelled in (f"{space}{surface}" for surface in surfaces for space in ("", " ")):
            row = _flat(clip.tokenize(spelled))
            for key, offset in offsets.items():
                start, stop = _content(row[key], empty[key])
                where = _occurrences(row[key][start:stop], prompt[key], range(*encoders[key]))
                found |= {offset + place for place in where}
        return found

    def in_place(start: int, stop: int, exactly: bool) -> set[int]:
        """Places of a part of the text, by what is before it. Cut there, text may be spelled otherwise than in the
        whole prompt: then nowhere, or not exactly, the tokens that reach into it."""
        found: set[int] = set()
        before, until = (_flat(clip.tokenize(text[:end])) for end in (start, stop))
        for key, offset in offsets.items():
            whole = prompt[key][slice(*encoders[key])]
            first, last = (
                _in_common(row[key][slice(*_content(row[key], empty[key]))], whole) for row in (before, until)
            )
            _, most = _content(until[key], empty[key])
            if not exactly or last == most - encoders[key][0]:
                found |= {offset + encoders[key][0] + place for place in range(first, max(last, first + 1))}
        return found

    places = []
    for name in names:
        spans = _spans(name, text)
        # Tokens may also begin a longer word: car, of carpet.
        found = alone({text[slice(*span)] for span in spans}) - alone(_longer(name, text))
        found = found.union(*(in_place(*span, exactly=True) for span in spans))
        found = found or set().union(*(in_place(*span, exactly=False) for span in spans))
        if not found:
            raise ValueError(f"words: {name!r} is in the prompt, but not among its tokens. Take another word.")
        places.append(tuple(sorted(found)))
    every = {offset + place for key, offset in offsets.items() for place in range(*encoders[key])}
    others = every.difference(*places)
    known_by = uuid4().hex
    marked = [[each, {**options, CONDITION: known_by}] for each, options in conditioning]
    return Words(tuple(names), (*places, tuple(sorted(others))), length, layer, known_by), marked


def parse_words(text: str) -> list[str]:
    """'bear, brown grass' → these two."""
    return list(dict.fromkeys(filter(None, (part.strip() for part in re.split("[,，、]", text)))))


def _flat(tokens: dict[str, Any]) -> dict[str, list[Token]]:
    """Each encoder's tokens in one row."""
    rows = {key: [token for part in parts for token, *_ in part] for key, parts in tokens.items()}
    return {key: row for key, row in rows.items() if row}


def _content(row: list[Token], empty: list[Token]) -> tuple[int, int]:
    """The part of a row of tokens that an empty prompt does not have: behind a template's beginning, before its end and
    the padding."""
    row, empty = _unpadded(row), _unpadded(empty)
    least = min(len(row), len(empty))
    start = next((at for at in range(least) if not _same(row[at], empty[at])), least)
    most = least - start
    end = next((at for at in range(most) if not _same(row[-1 - at], empty[-1 - at])), most)
    return start, len(row) - end


def _unpadded(row: list[Token]) -> list[Token]:
    end = len(row)
    while end > 1 and _same(row[end - 1], row[end - 2]):
        end -= 1
    return row[:end]


def _in_common(row: list[Token], other: list[Token]) -> int:
    """Number of equal tokens at the beginning of two rows."""
    pairs = zip(row, other, strict=False)
    return next((at for at, pair in enumerate(pairs) if not _same(*pair)), min(len(row), len(other)))


def _offsets(lengths: dict[str, int], content: dict[str, tuple[int, int]], length: int) -> dict[str, int]:
    """Encoder → what a place among its tokens has to be moved by in the conditioning, which has so many."""
    pooled = [key for key in lengths if key in POOLED]
    others = [key for key in lengths if key not in POOLED]
    for first in pooled:
        for second in others:
            if lengths[first] + lengths[second] == length:  # SD3: CLIP's two beside each other, then T5
                return {first: 0, second: lengths[first]}
    if pooled and length == lengths[pooled[0]]:  # its second encoder was not loaded
        return {pooled[0]: 0}
    main = (others or pooled)[-1]
    if length < lengths[main]:  # the template before the prompt is cut off
        return {main: -content[main][0]}
    return {main: 0}


def _spans(name: str, text: str) -> list[tuple[int, int]]:
    """Spans of a word, or of several that belong together, in the prompt.

    Raises:
        ValueError: it does not.
    """
    parts = [re.escape(part) for part in name.split()]
    found = [match.span() for match in re.finditer(_bounded(r"\s+".join(parts)), text, re.IGNORECASE)]
    if not found:
        each = [[match.span() for match in re.finditer(_bounded(part), text, re.IGNORECASE)] for part in parts]
        found = [*chain.from_iterable(each)] if all(each) else []
    if not found:
        known = sorted(set(re.findall(r"[^\W\d_][\w'-]*", text)))
        raise ValueError(f"words: {name!r} is not in the prompt. Its words are: {', '.join(known) or 'none'}.")
    return found


def _bounded(pattern: str) -> str:
    """Not inside a longer word, in scripts that put spaces between words."""
    return pattern if re.search(UNSPACED, pattern) else rf"(?<!\w){pattern}(?!\w)"


def _longer(name: str, text: str) -> set[str]:
    """Longer words of the prompt with this word, or one of these, in them."""
    if re.search(UNSPACED, name):
        return set()
    parts = name.casefold().split()
    words = {word for word in re.findall(r"\w+", text) if word.casefold() not in parts}
    return {word for word in words if any(part in word.casefold() for part in parts)}


def _occurrences(wanted: list[Token], row: list[Token], within: range) -> Iterator[int]:
    size = len(wanted)
    for start in range(within.start, within.stop - size + 1) if size else ():
        if all(_same(mine, theirs) for mine, theirs in zip(wanted, row[start : start + size], strict=True)):
            yield from range(start, start + size)


def _same(mine: Token, theirs: Token) -> bool:
    if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return torch.equal(mine, theirs)
    return isinstance(mine, int) and isinstance(theirs, int) and mine == theirs
