"""What can be measured on pictures. Float arrays in 0 … 1, (height, width, 3)."""

import numpy as np

BANDS = 16  # of the radial power spectrum, equally wide from 0 to 1/2 cycle/px
OCTAVES = tuple((2.0**-n / 2, 2.0**-n) for n in range(5, 0, -1))  # from 1/64 to 1/2 cycle/px
TINY = 1e-9  # added to power: that of a picture of one colour is none
LUMINANCE = np.array([0.299, 0.587, 0.114])


def spectrum(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles/px and the luminance's power at each, mean removed and edges tapered."""
    grey = picture @ LUMINANCE
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in grey.shape), indexing="ij"))
    return frequency, power


def energy_above(picture: np.ndarray, cutoff: float) -> float:
    """Spectral energy above a frequency in cycles/px."""
    frequency, power = spectrum(picture)
    return float(power[frequency > cutoff].sum())


def energy_in_octaves(picture: np.ndarray) -> np.ndarray:
    """Spectral energy in each of OCTAVES."""
    frequency, power = spectrum(picture)
    return np.array([power[(frequency > low) & (frequency <= high)].sum() for low, high in OCTAVES])


def contrast(picture: np.ndarray) -> float:
    """Standard deviation of the luminance."""
    return float((picture @ LUMINANCE).std())


def saturation(picture: np.ndarray) -> float:
    """Mean of HSV's saturation: 0 is grey."""
    most = picture.max(axis=-1)
    return float(((most - picture.min(axis=-1)) / np.maximum(most, 1e-6)).mean())


def radial_spectrum(picture: np.ndarray) -> np.ndarray:
    """Mean power in rings of equal width up to half a cycle per pixel."""
    frequency, power = spectrum(picture)
    ring = np.minimum((frequency * 2 * BANDS).astype(int), BANDS)
    return np.array([power[ring == band].mean() for band in range(BANDS)])


def log_spectrum(picture: np.ndarray) -> np.ndarray:
    """Its logarithm, finite for a picture of one colour too."""
    return np.log(radial_spectrum(picture) + TINY)


def spectrum_distance(picture: np.ndarray, reference: np.ndarray) -> float:
    """Mean over the rings of |log power ratio|: 0 is equal.

    Args:
        reference: the mean of real pictures' log spectra, so that the ratio is to the geometric mean of their power.
    """
    return float(np.abs(log_spectrum(picture) - reference).mean())


def low_pass_correlation(first: np.ndarray, second: np.ndarray, cutoff: float = 1 / 16) -> float:
    """Correlation of two pictures' layout, what is left below a frequency in cycles/px (all colours together).

    The layout of a texture without any (plain drywall) is noise; its correlation says little.
    """
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in first.shape[:2]), indexing="ij"))
    keep = (frequency < cutoff)[..., None]
    one, other = (np.fft.ifft2(np.fft.fft2(p, axes=(0, 1)) * keep, axes=(0, 1)).real.ravel() for p in (first, second))
    return float(np.corrcoef(one, other)[0, 1])
