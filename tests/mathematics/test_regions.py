"""Masks of what was read of a picture, and its foreground by two clusters."""

import numpy as np
import pytest
import torch
from pack.methods.regions.foreground import largest_channels, nearness
from pack.methods.regions.masks import divided, shares, soft_masks
from pack.methods.regions.words import word_attention
from scipy.cluster.vq import kmeans2


@pytest.fixture
def pictures():
    """Three channels of two pictures, (2, 3, 10, 12): of the first a block in the middle differs from the rest, of the
    second a block at its border."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 3, 10, 12, generator=generator)
    values[0, :, 3:7, 4:9] += torch.tensor([4.0, -3.0, 5.0]).view(3, 1, 1)
    values[1, :, 6:, :7] += torch.tensor([3.0, 4.0, 0.0]).view(3, 1, 1)
    return values


def test_the_foreground_touches_the_border_less(pictures):
    near = nearness(pictures)
    found = near[:, 0] > 0.5
    middle = torch.zeros(10, 12, dtype=torch.bool)
    middle[3:7, 4:9] = True
    assert (found[0] == middle).float().mean() > 0.97
    torch.testing.assert_close(near.sum(dim=1), torch.ones(2, 10, 12))
    assert found[1, 0].float().mean() > 0.9 or not found[1, 0].any(), "one of the two sides"


def test_clusters_are_those_of_k_means(pictures):
    """As close as SciPy's best from twenty starts; and how near a token is follows from the distances to both."""

    def inertia(tokens, labels):
        return sum(np.square(tokens[labels == n] - tokens[labels == n].mean(axis=0)).sum() for n in (0, 1))

    for picture in pictures:
        tokens = picture.flatten(1).T.double().numpy()
        tokens = (tokens - tokens.mean(axis=0)) / tokens.std(axis=0, ddof=1)
        starts = [kmeans2(tokens, 2, minit="++", seed=np.random.default_rng(start))[1] for start in range(20)]
        near = nearness(picture.double()[None])[0, 0].flatten().numpy()
        labels = (near > 0.5).astype(int)
        assert inertia(tokens, labels) <= 1.01 * min(inertia(tokens, each) for each in starts)
        rest, foreground = (np.linalg.norm(tokens - tokens[labels == n].mean(axis=0), axis=1) for n in (0, 1))
        np.testing.assert_allclose(near, rest / (rest + foreground), atol=1e-6)


def test_channels_that_go_against_each_other(pictures):
    """The sign of a channel does not matter."""
    two = pictures[:1, :2]
    two[:, 1] = -two[:, 0] + 0.3 * two[:, 1]
    for sign in (1, -1):
        found = nearness(two * torch.tensor([1.0, sign]).view(1, 2, 1, 1))
        torch.testing.assert_close(found, nearness(two))
        assert (found[0, 0] > 0.5)[3:7, 4:9].float().mean() > 0.9


def test_frames_of_a_video_are_divided_together(pictures):
    video = pictures[:1, :, None].repeat(1, 1, 3, 1, 1)
    near = nearness(video)
    alone = nearness(pictures[:1])
    assert near.shape == (1, 2, 3, 10, 12)
    torch.testing.assert_close(near[:, :, 1], alone, atol=1e-3, rtol=0)


def test_a_picture_without_any_difference():
    near = nearness(torch.ones(1, 2, 4, 4))
    assert near.isfinite().all()
    assert soft_masks(near, 0.2).isfinite().all()


def test_largest_channels():
    z = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))
    z[0, :, 3] *= 10
    z[1, :, 0] *= 10
    values = largest_channels(z, 1)
    torch.testing.assert_close(values, torch.stack([z[:1, :, 3], z[1:, :, 0]])[:, 0, None])
    assert largest_channels(z, 64).shape == (2, 5, 6), "no more than there are"


def test_soft_and_divided_masks():
    maps = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.1, 0.2], [0.1, 0.4, 0.1]])[None, :, None]  # two regions, the rest
    share = torch.tensor([[2 / 3, 5 / 9, 0.9], [7 / 8, 1 / 5, 2 / 3]])[None, :, None]
    torch.testing.assert_close(shares(maps), share)
    soft = soft_masks(maps, 0.4)
    torch.testing.assert_close(soft, ((share - 0.5) / 0.4 + 0.5).clamp(0, 1))
    assert soft_masks(maps, 0.0).flatten().tolist() == [1, 1, 1, 1, 0, 1]
    assert divided(maps).flatten().tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("of_mask", [float, bool])
@pytest.mark.parametrize("words", [2, 70])  # more than queries are wide
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_to_words(words, key_heads, of_mask):
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(2, heads, tokens, 8, generator=generator) for heads, tokens in ((4, 5), (key_heads, 9)))
    bias = torch.randn(2, 4, 5, 9, generator=generator)
    places = [sorted(torch.randperm(9, generator=generator)[: 1 + word % 3].tolist()) for word in range(words)] + [[]]
    if of_mask is bool:
        bias = (bias > -1).to(torch.bool)
    actual = word_attention(q, k, places, 0.3, bias)
    added = bias if of_mask is float else torch.where(bias, 0.0, -torch.inf)
    scores = 0.3 * q @ k.repeat_interleave(4 // key_heads, dim=1).transpose(-1, -2) + added
    attention = scores.softmax(dim=-1).mean(dim=1)
    expected = torch.stack([attention[..., p].mean(dim=-1) if p else torch.zeros(2, 5) for p in places], dim=1)
    torch.testing.assert_close(actual, expected)
