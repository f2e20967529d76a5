"""What pictures are judged by: real pictures of the same prompts, seen by frequency and by a trained network."""

import zlib
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import perceptual
import photographs
import plain_modules  # noqa: F401
import scipy.linalg
import torch
from laboratory import Laboratory, Pairs
from pack.methods.calibration import metrics
from references import REALS_EACH
from torch import Tensor, nn

DIMENSIONS = 64  # of the Fréchet distance, so that some hundred pictures give a covariance of full rank
DRAWS = 1000  # of the bootstrap
CONFIDENT = 1.96  # standard errors, 95 % of a normal distribution


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ({self.low:.3g} … {self.high:.3g})"

    @property
    def signed(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} … {self.high:+.3f})"

    @property
    def percent(self) -> str:
        return f"{self.mean:.0%} ({self.low:.0%} … {self.high:.0%})"

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def estimate(values: np.ndarray) -> Estimate:
    """By bootstrap over pictures."""
    draws = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    return Estimate(float(values.mean()), *np.percentile(draws, [2.5, 97.5]))


def ratio(values: np.ndarray, others: np.ndarray) -> Estimate:
    """The one mean over the other's, of the same pictures, by bootstrap over them."""
    draws = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    quotients = values[draws].mean(axis=1) / others[draws].mean(axis=1)
    return Estimate(float(values.mean() / others.mean()), *np.percentile(quotients, [2.5, 97.5]))


@dataclass(frozen=True)
class Judged:
    """Figures of the pictures of one setting, of each picture unless it says otherwise: (n,).

    Attributes:
        pairs: what they are of.
        pictures: (n, height, width, 3).
        distance: mean |log ratio| of the radial spectrum to the geometric mean of real pictures'; smaller is better.
        bands: log of the energy in each of `metrics.OCTAVES`, minus the mean of the real pictures', (n, octaves).
        texture: log probability that the probe gives to what the prompt names.
        right: whether that is the most probable one.
        features: (n, features).
    """

    pairs: Pairs
    pictures: np.ndarray
    distance: np.ndarray
    bands: np.ndarray
    texture: np.ndarray
    right: np.ndarray
    features: np.ndarray

    def first(self, count: int) -> "Judged":
        return Judged(**{field.name: getattr(self, field.name)[:count] for field in fields(self)})

    def layout(self, base: "Judged") -> np.ndarray:
        """Correlation of the layout with that of the same pairs in another setting, (n,)."""
        pairs = zip(base.pictures.astype(float), self.pictures.astype(float), strict=True)
        return np.array([metrics.low_pass_correlation(*pair) for pair in pairs])

    def unlike(self, base: "Judged") -> np.ndarray:
        """Perceptual distance from the same pairs in another setting, (n,)."""
        return perceptual.distances(self.pictures, base.pictures)


class Judge:
    """Fitted to real pictures once.

    Attributes:
        held_out: the probe's accuracy on real pictures it was not fitted to.
    """

    def __init__(self, laboratory: Laboratory):
        self.laboratory = laboratory
        self.names = list(laboratory.textures)
        generator = torch.Generator().manual_seed(2)
        prompts = [self.names[n % len(self.names)] for n in range(laboratory.size.reals)]
        features = torch.from_numpy(self.features(self._drawn(prompts, generator)))
        self.centre, self.spread = features.mean(dim=0), features.std(dim=0) + 1e-6
        standard, labels = self._standard(features), torch.tensor([self.names.index(prompt) for prompt in prompts])
        fitted = len(prompts) * 2 // 3
        self.probe = _fit(standard[:fitted], labels[:fitted], len(self.names))
        guess = self.probe(standard[fitted:]).argmax(dim=1)
        self.held_out = float((guess == labels[fitted:]).float().mean())
        self.components = torch.linalg.svd(standard, full_matrices=False).Vh[:DIMENSIONS]

    def __call__(self, pictures: np.ndarray, pairs: Pairs) -> Judged:
        prompts = [self.laboratory.prompt(pair) for pair in pairs]
        features = self.features(pictures)
        labels = torch.tensor([self.names.index(prompt) for prompt in prompts])
        with torch.no_grad():
            likely = self.probe(self._standard(torch.from_numpy(features))).log_softmax(dim=1)
        logs = [self._logs(prompt) for prompt in prompts]
        bands = np.array([_log_bands(picture) for picture in pictures])
        distances = [
            metrics.spectrum_distance(picture.astype(float), spectrum)
            for picture, (spectrum, _) in zip(pictures, logs, strict=True)
        ]
        return Judged(
            pairs=pairs,
            pictures=pictures,
            distance=np.array(distances),
            bands=bands - [band for _, band in logs],
            texture=likely.gather(1, labels[:, None])[:, 0].numpy(),
            right=(likely.argmax(dim=1) == labels).float().numpy(),
            features=features,
        )

    def sampled(self, model: Any, pairs: Pairs, **arguments: Any) -> Judged:
        return self(self.laboratory.pictures(model, pairs, **arguments), pairs)

    @cache  # noqa: B019  there is one judge
    def reals(self, prompt: str) -> np.ndarray:
        """Some real pictures of a prompt."""
        generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
        return self._drawn([prompt] * REALS_EACH, generator)

    def other_reals(self, pairs: Pairs) -> Judged:
        """One more real picture of each pair's prompt."""
        prompts = [self.laboratory.prompt(pair) for pair in pairs]
        return self(self._drawn(prompts, torch.Generator().manual_seed(3)), pairs)

    def frechet(self, judged: Judged) -> float:
        """Distance to real pictures of the same prompts."""
        return _frechet(_moments(self._reduced(judged.features)), _moments(self._reduced(self._reals(judged))))

    def kernel_change(self, judged: Judged, base: Judged) -> Estimate:
        """Of the kernel distance to real pictures, between two settings of the same pairs."""
        ours, theirs, real = (
            self._standard(torch.from_numpy(each)).double().numpy()
            for each in (judged.features, base.features, self._reals(judged))
        )
        return kernel_change(ours, theirs, real)

    def _reals(self, judged: Judged) -> np.ndarray:
        return self._real_features(frozenset(self.laboratory.prompt(pair) for pair in judged.pairs))

    @cache  # noqa: B019
    def _real_features(self, prompts: frozenset[str]) -> np.ndarray:
        return self.features(np.concatenate([self.reals(prompt) for prompt in sorted(prompts)]))

    @cache  # noqa: B019
    def _logs(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean log spectrum and mean log energy in bands of real pictures of a prompt."""
        reals = self.reals(prompt)
        return (
            np.mean([metrics.log_spectrum(real.astype(float)) for real in reals], axis=0),
            np.mean([_log_bands(r) for r in reals], axis=0),
        )

    def _drawn(self, prompts: list[str], generator: torch.Generator) -> np.ndarray:
        textures = self.laboratory.textures
        drawn = torch.cat([photographs.crops(textures[prompt], 1, generator) for prompt in prompts])
        return np.concatenate([self.laboratory.autoencoder.reconstructed(part) for part in drawn.split(64)])

    @torch.inference_mode()
    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, height, width, 3) → (n, features)."""
        parts = np.array_split(pictures, max(1, len(pictures) // 64))
        return torch.cat([perceptual.features(part)[-1].mean(dim=(2, 3)) for part in parts]).numpy()

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.centre) / self.spread

    def _reduced(self, features: np.ndarray) -> np.ndarray:
        return (self._standard(torch.from_numpy(features)) @ self.components.T).double().numpy()


def _fit(features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Multinomial logistic regression."""
    probe = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(probe(features), labels) + 1e-2 * probe.weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return probe


def _log_bands(picture: np.ndarray) -> np.ndarray:
    return np.log(metrics.energy_in_octaves(picture.astype(float)) + metrics.TINY)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features.T)


def _frechet(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """Fréchet distance of two Gaussians (Heusel et al., arXiv 1706.08500, equation 6), given as mean and covariance."""
    (mean, covariance), (other_mean, other_covariance) = ours, theirs
    values = scipy.linalg.eigvals(covariance @ other_covariance)
    root = np.sqrt(np.maximum(values.real, 0)).sum()  # trace of the product's square root
    return float(((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other_covariance) - 2 * root)


def kernel_change(ours: np.ndarray, theirs: np.ndarray, real: np.ndarray) -> Estimate:
    """Change of the kernel distance to real pictures' features, from `theirs` to `ours`, which are of the same pairs.

    The kernel distance (Bińkowski et al., arXiv 1801.01401, section 4) is the squared maximum mean discrepancy with the
    kernel (x·y / features + 1)³. Unlike a Fréchet distance its estimate has no bias, also of few pictures. The interval
    is a jackknife's over pairs; the real pictures are taken as given.
    """

    def parts(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        within = _kernel(features, features)
        np.fill_diagonal(within, 0)
        return within, _kernel(features, real).mean(axis=1)

    def value(within: float, across: float, n: int) -> float:
        return within / (n * (n - 1)) - 2 * across / n

    n = len(ours)
    whole, without = 0.0, np.zeros(n)
    for sign, features in ((1, ours), (-1, theirs)):
        within, across = parts(features)
        total, rows = within.sum(), within.sum(axis=1)
        whole += sign * value(total, across.sum(), n)
        without += sign * value(total - 2 * rows, across.sum() - across, n - 1)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return Estimate(float(whole), float(whole - CONFIDENT * error), float(whole + CONFIDENT * error))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3
