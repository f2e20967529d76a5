"""Where the words of a prompt are among its tokens, for whatever text encoders a CLIP has."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from comfy.sd import CLIP

from ..detail_guidance.words import Words

POOLED = ("l", "g")  # CLIP's encoders, whose tokens only some models take beside their pooled output
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
    encoders = {key: _content(prompt[key], empty[key]) for key in prompt}
    offsets = _offsets({key: len(each) for key, each in prompt.items()}, encoders, length)

    def places_of(surfaces: Iterable[str]) -> set[int]:
        """With and without a space before them: tokenizers tell the two apart."""
        found: set[int] = set()
        for spelled in (f"{space}{surface}" for surface in surfaces for space in ("", " ")):
            alone = _flat(clip.tokenize(spelled))
            for key, offset in offsets.items():
                start, stop = _content(alone[key], empty[key])
                where = _occurrences(alone[key][start:stop], prompt[key], range(*encoders[key]))
                found |= {offset + place for place in where}
        return found

    places = []
    for name in names:
        # Tokens may also begin a longer word: car, of carpet.
        found = places_of(_surfaces(name, text)) - places_of(_longer(name, text))
        if not found:
            raise ValueError(f"words: {name!r} is in the prompt, but not among its tokens. Take another word.")
        places.append(tuple(sorted(found)))
    every = {offset + place for key, offset in offsets.items() for place in range(*encoders[key])}
    others = every.difference(*places)
    return Words(tuple(names), (*places, tuple(sorted(others))), length, layer), conditioning


def parse_words(text: str) -> list[str]:
    """'bear, brown grass' → these two."""
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _flat(tokens: dict[str, Any]) -> dict[str, list[Token]]:
    """Each encoder's tokens in one row, without the padding at its end."""
    rows = {key: [token for part in parts for token, *_ in part] for key, parts in tokens.items()}
    return {key: row for key, row in rows.items() if row}


def _content(row: list[Token], empty: list[Token]) -> tuple[int, int]:
    """Where in a row of tokens is what an empty prompt does not have: behind a template's beginning, before its end and
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


def _offsets(lengths: dict[str, int], content: dict[str, tuple[int, int]], length: int) -> dict[str, int]:
    """Encoder → what a place among its tokens has to be moved by in the conditioning, which has so many."""
    pooled = [key for key in lengths if key in POOLED]
    others = [key for key in lengths if key not in POOLED]
    for first in pooled:
        for second in others:
            if lengths[first] + lengths[second] == length:  # SD3: CLIP's two beside each other, then T5
                return {first: 0, second: lengths[first]}
    main = (others or pooled)[-1]
    if length < lengths[main]:  # the template before the prompt is cut off
        return {main: -content[main][0]}
    return {main: 0}


def _surfaces(name: str, text: str) -> set[str]:
    """How a word, or several that belong together, stand in the prompt.

    Raises:
        ValueError: it does not.
    """
    parts = [re.escape(part) for part in name.split()]
    phrase = r"\s+".join(parts)
    found = set(re.findall(rf"(?<!\w){phrase}(?!\w)", text, re.IGNORECASE))
    if not found:
        each = [set(re.findall(rf"(?<!\w){part}(?!\w)", text, re.IGNORECASE)) for part in parts]
        found = set().union(*each) if all(each) else set()
    if not found:
        known = sorted(set(re.findall(r"[^\W\d_][\w'-]*", text)))
        raise ValueError(f"words: {name!r} is not in the prompt. Its words are: {', '.join(known) or 'none'}.")
    return found


def _longer(name: str, text: str) -> set[str]:
    """Longer words of the prompt with this word, or one of these, in them."""
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
