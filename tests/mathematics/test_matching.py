"""Matching against plain NumPy loops, and on features whose truth is planted."""

import numpy as np
import pytest
import torch
from pack.methods.features import matching
from pack.methods.features.features import Features, load, save

SIZE = (96, 128)  # pixels of pictures with 6 × 8 tokens


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def centre(row, column):
    """Of a token, in pixels, (x, y)."""
    return 16 * column + 8, 16 * row + 8


# Points


@pytest.mark.parametrize("place", [(0, 0), (2, 3), (5, 7)])
def test_a_point_is_found_where_its_token_was_put(place):
    source, target = normal(1, 64, 6, 8), normal(2, 64, 6, 8)
    target[:, 4, 2] = 3 * source[:, *place]
    found = matching.match(source, target, *centre(*place), SIZE, SIZE)
    assert found.mutual and found.likeness == pytest.approx(1, abs=1e-5)
    assert (found.x, found.y) == pytest.approx(centre(4, 2), abs=1.0)


def test_a_point_whose_like_is_nowhere_does_not_return():
    source, target = normal(1, 64, 6, 8), normal(2, 64, 6, 8)
    target[:, 4, 2] = source[:, 5, 7]  # the best for the other token, and no more
    target[:, 4, 2] += 0.7 * source[:, 0, 0]
    assert not matching.match(source, target, *centre(0, 0), SIZE, SIZE).mutual
    assert matching.match(source, target, *centre(5, 7), SIZE, SIZE).mutual


def test_likeness_is_the_cosine():
    vectors, features = normal(3, 16, 5), normal(4, 16, 6, 8)
    found = matching.likeness(vectors, features).numpy()
    for number, row, column in np.ndindex(*found.shape):
        expected = cosine(vectors[:, number].numpy(), features[:, row, column].numpy())
        assert found[number, row, column] == pytest.approx(expected, abs=1e-5)


def test_between_two_tokens_the_place_lies_between():
    heat = torch.zeros(6, 8)
    heat[3, 4], heat[3, 5] = 1.0, 1.0
    column, row = matching.peak(heat)
    assert (column, row) == pytest.approx((5.0, 3.5), abs=0.01)


def test_a_point_between_tokens_has_their_mean():
    features = normal(5, 16, 6, 8)
    x, y = 16 * 3, 16 * 2 + 8  # on the border of tokens (2, 2) and (2, 3)
    expected = (features[:, 2, 2] + features[:, 2, 3]) / 2
    torch.testing.assert_close(matching.at(features, x, y, SIZE), expected)


# Masks


def plain_votes(tokens, sources, labels):
    """Each token's label: of the five most alike, weighted by the exponential of cosine / 0.1."""
    result = np.zeros((len(labels), len(tokens)))
    for number, token in enumerate(tokens):
        alike = [(cosine(token, source), index) for index, source in enumerate(sources) if source is not None]
        best = sorted(alike, reverse=True)[:5]
        weights = np.exp([likeness / 0.1 for likeness, _ in best])
        for label in range(len(labels)):
            votes = [labels[label][index] for _, index in best]
            result[label, number] = np.dot(weights, votes) / weights.sum()
    return result


def test_transfer():
    source, target = normal(6, 16, 6, 8), normal(7, 16, 5, 7)
    labels = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(8))
    expected = plain_votes(*(each.flatten(1).T.numpy() for each in (target, source)), labels.flatten(1).numpy())
    np.testing.assert_allclose(matching.transfer(source, labels, target).flatten(1), expected, atol=1e-5)


def test_transfer_of_what_returns():
    """A token keeps its label only where it is found again, to within a token."""
    source, target = normal(6, 16, 6, 8), normal(7, 16, 5, 7)
    labels = torch.ones(1, 6, 8)
    kept = matching.transfer(source, labels, target, mutual=True)[0]
    tokens, sources = target.flatten(1).T.numpy(), source.flatten(1).T.numpy()
    for row, column in np.ndindex(5, 7):
        forth = max(range(48), key=lambda index: cosine(tokens[row * 7 + column], sources[index]))
        back = max(range(35), key=lambda index: cosine(sources[forth], tokens[index]))
        returns = abs(back // 7 - row) <= 1 and abs(back % 7 - column) <= 1
        assert kept[row, column] == pytest.approx(float(returns), abs=1e-5)
    assert 0 < kept.sum() < 35


def test_follow_takes_from_the_first_and_from_the_frames_before_within_reach(monkeypatch):
    monkeypatch.setattr(matching, "RADIUS", 2)
    frames = normal(9, 5, 16, 6, 8)
    first = (torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(10)) > 0.5).float()
    found = matching.follow(frames, first, earlier=2)
    assert torch.equal(found[0], first)
    for frame in range(1, 5):
        sources = sorted({0, *range(max(0, frame - 2), frame)})
        known = np.concatenate([found[source].flatten().numpy() for source in sources])
        for row, column in np.ndindex(6, 8):
            near = [
                frames[source][:, r, c].numpy() if max(abs(r - row), abs(c - column)) <= 2 else None
                for source in sources
                for r, c in np.ndindex(6, 8)
            ]
            expected = plain_votes([frames[frame][:, row, column].numpy()], near, [known])
            assert found[frame, 0, row, column] == pytest.approx(expected[0, 0], abs=1e-5)


def test_a_thing_that_moves_is_followed():
    thing, ground = normal(11, 16), normal(12, 16)
    frames = ground[None, :, None, None] + 0.1 * normal(13, 6, 16, 6, 8)
    for frame in range(6):
        frames[frame, :, 2:4, frame : frame + 2] += (thing - ground)[:, None, None]
    first = torch.zeros(1, 6, 8)
    first[:, 2:4, 0:2] = 1
    for frame, found in enumerate(matching.follow(frames, first, earlier=2)):
        expected = torch.zeros(6, 8)
        expected[2:4, frame : frame + 2] = 1
        assert torch.equal((found[0] > 0.5).float(), expected)


def test_a_mask_on_tokens_and_back():
    mask = torch.zeros(SIZE)
    mask[0:16, 0:8] = 1  # half of the first token
    tokens = matching.tokens_of_mask(mask, (6, 8))
    assert tokens[0, 0, 0] == 0.5 and tokens.sum() == 0.5
    assert matching.to_pixels(tokens, SIZE).shape == (1, *SIZE)


# What features show


def test_components_are_the_principal_ones_of_all_pictures():
    features = normal(14, 3, 16, 6, 8) * torch.linspace(3, 0.5, 16)[:, None, None]
    found = matching.components(features)
    tokens = features.movedim(1, -1).reshape(-1, 16).double().numpy()
    centred = tokens - tokens.mean(axis=0)
    *_, vectors = np.linalg.svd(centred, full_matrices=False)
    for number in range(3):
        vector = vectors[number] * np.sign(vectors[number][np.abs(vectors[number]).argmax()])
        projected = centred @ vector
        low, high = np.quantile(projected, [0.01, 0.99])
        expected = np.clip((projected - low) / (high - low), 0, 1)
        np.testing.assert_allclose(found[:, number].flatten(), expected, atol=1e-4)


def test_parts_are_the_planted_ones_in_the_order_of_their_size():
    means = 4 * normal(15, 3, 16)
    truth = torch.tensor([0] * 8 + [2] * 12 + [1] * 28).view(1, 6, 8)
    features = means[truth].movedim(-1, 1) + 0.1 * normal(16, 1, 16, 6, 8)
    found = matching.parts(features, 3)
    assert found.shape == (1, 3, 6, 8) and (found.sum(dim=1) == 1).all()
    for part, label in enumerate((1, 2, 0)):
        assert torch.equal(found[0, part], truth[0] == label)
    assert torch.equal(found, matching.parts(features, 3))


def test_more_parts_than_tokens():
    with pytest.raises(ValueError, match="parts: 5 is more than the 4 tokens"):
        matching.parts(normal(17, 1, 8, 2, 2), 5)


# Files


def test_saved_and_loaded_they_are_the_same(tmp_path):
    made = Features(normal(18, 2, 9, 6, 8), *SIZE, "SD3 / SD3.5", "a1b2", 3, 10, (2, 5), True, 2, 0.26)
    save(made, tmp_path / "f.safetensors", {"host": "ComfyUI"})
    again = load(tmp_path / "f.safetensors")
    assert again == made and torch.equal(again.values, made.values)
