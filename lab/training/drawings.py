"""Pictures whose truth is known: drawings of things at known places on plain, graded and speckled grounds.

The drawings are Microsoft's Fluent Emoji 3D (MIT), from the npm package `@lobehub/fluent-emoji-3d` that the tests use;
none is committed.
"""

import colorsys
import itertools
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / ".host/javascript/node_modules/@lobehub/fluent-emoji-3d/assets"
PICTURE = 128  # pixels of a picture's side; the model also draws 256
MARGIN = 0.03  # of the side: nothing touches the border
SHIFT = 0.04  # of the side: how far from its usual place a thing may stand; a small model blurs what varies more
BORDER = 2  # transparent pixels round a drawing, so that turned straight edges are smooth

# Things by name: prompts are made of these.
THINGS = {
    "red apple": "1f34e", "green apple": "1f34f", "pear": "1f350", "lemon": "1f34b", "banana": "1f34c",
    "pineapple": "1f34d", "cherries": "1f352", "strawberry": "1f353", "watermelon": "1f349", "grapes": "1f347",
    "tomato": "1f345", "carrot": "1f955", "corn": "1f33d", "avocado": "1f951", "mushroom": "1f344",
    "hamburger": "1f354", "pizza": "1f355", "hot dog": "1f32d", "doughnut": "1f369", "cookie": "1f36a",
    "cupcake": "1f9c1", "birthday cake": "1f382", "ice cream": "1f366", "pretzel": "1f968", "fried egg": "1f373",
    "fox": "1f98a", "bear": "1f43b", "panda": "1f43c", "pig": "1f437", "frog": "1f438",
    "lion": "1f981", "tiger": "1f42f", "cow": "1f42e", "rabbit": "1f430", "cat": "1f431",
    "dog": "1f436", "koala": "1f428", "monkey": "1f435", "horse": "1f434", "owl": "1f989",
    "penguin": "1f427", "chick": "1f424", "duck": "1f986", "turtle": "1f422", "fish": "1f420",
    "octopus": "1f419", "whale": "1f433", "snail": "1f40c", "butterfly": "1f98b", "ladybug": "1f41e",
    "school bus": "1f68c", "red car": "1f697", "taxi": "1f695", "police car": "1f693", "ambulance": "1f691",
    "fire truck": "1f692", "tractor": "1f69c", "train": "1f686", "bicycle": "1f6b2", "scooter": "1f6f5",
    "rocket": "1f680", "airplane": "2708-fe0f", "helicopter": "1f681", "sailboat": "26f5", "ship": "1f6a2",
    "house": "1f3e0", "castle": "1f3f0", "tent": "26fa", "church": "26ea", "ferris wheel": "1f3a1",
    "clock": "23f0", "camera": "1f4f7", "radio": "1f4fb", "television": "1f4fa", "telephone": "260e-fe0f",
    "light bulb": "1f4a1", "candle": "1f56f-fe0f", "key": "1f511", "lock": "1f512", "hammer": "1f528",
    "scissors": "2702-fe0f", "umbrella": "2602-fe0f", "crown": "1f451", "top hat": "1f3a9", "glasses": "1f453",
    "shoe": "1f45f", "backpack": "1f392", "gift": "1f381", "balloon": "1f388", "teddy bear": "1f9f8",
    "football": "26bd", "basketball": "1f3c0", "guitar": "1f3b8", "violin": "1f3bb", "drum": "1f941",
    "trumpet": "1f3ba", "piano": "1f3b9", "sunflower": "1f33b", "rose": "1f339", "tulip": "1f337",
    "cactus": "1f335", "palm tree": "1f334", "pine tree": "1f332", "snowman": "26c4", "robot": "1f916",
    "ghost": "1f47b", "teapot": "1fad6", "coffee cup": "2615",
}  # fmt: skip
HELD_OUT_SHARE = 25  # one in so many drawings without a name above is never trained on, by any model
HELD_OUT_PAIRS = 20  # one in so many pairs of things is never side by side in what the diffusion model is trained on

HUES = {"red": 0.0, "orange": 0.08, "yellow": 0.15, "green": 0.36, "teal": 0.49, "blue": 0.6, "purple": 0.75,
        "pink": 0.9}  # fmt: skip
GROUNDS = ("plain", "graded", "speckled")
JOIN, ON = "and", "on"


def vocabulary() -> list[str]:
    """Every word that a prompt may hold, sorted."""
    words = {word for name in THINGS for word in name.split()} | set(HUES) | set(GROUNDS) | {JOIN, ON}
    return sorted(words)


@dataclass(frozen=True)
class Placed:
    """One drawing in a scene; lengths in shares of the picture's side.

    Attributes:
        file: name of the drawing's file, without its ending.
        size: longer side of the drawing.
        x, y: centre.
        angle: turn to the left in degrees.
        mirrored: whether left and right are exchanged.
    """

    file: str
    size: float
    x: float
    y: float
    angle: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class Ground:
    """What lies behind the drawings.

    Attributes:
        kind: one of GROUNDS.
        hue: one of HUES.
        light, vivid: 0 to 1, lightness and saturation.
        seed: of the direction of a graded ground and of the speckles.
    """

    kind: str
    hue: str
    light: float
    vivid: float
    seed: int


@dataclass(frozen=True)
class Scene:
    ground: Ground
    placed: tuple[Placed, ...]
    prompt: str


def random_ground(random: np.random.Generator) -> Ground:
    return Ground(
        kind=str(random.choice(GROUNDS, p=(0.4, 0.4, 0.2))),
        hue=str(random.choice(list(HUES))),
        light=float(random.uniform(0.6, 0.85)),
        vivid=float(random.uniform(0.25, 0.7)),
        seed=int(random.integers(2**31)),
    )


def random_scene(random: np.random.Generator, things: list[str] | None = None) -> Scene:
    """One to three things side by side, named from left to right; three in four scenes name their ground.

    Args:
        things: names to choose from, all of THINGS without it.
    """
    count = int(random.choice([1, 2, 3], p=(0.8, 0.17, 0.03)))
    names = [str(name) for name in random.choice(things or list(THINGS), count, replace=False)]
    ground = random_ground(random)
    slot = 1 / count
    placed = []
    for n, name in enumerate(names):
        size = float(random.uniform(0.68, 0.82) if count == 1 else random.uniform(0.84, 0.92) * (slot - MARGIN / 2))
        room = min(SHIFT, max(0.0, slot - size - MARGIN) / 2)
        x = slot * (n + 0.5) + random.uniform(-room, room)
        y = 0.5 + random.uniform(-SHIFT, SHIFT)
        placed.append(Placed(THINGS[name], size, float(x), float(y), float(random.uniform(-3, 3))))
    prompt = f" {JOIN} ".join(names)
    if random.random() < 0.75:
        kind = "" if ground.kind == "plain" else f"{ground.kind} "
        prompt += f" {ON} {kind}{ground.hue}"
    return Scene(ground, tuple(placed), prompt)


def has_held_out_pair(scene: Scene) -> bool:
    """Whether two of a scene's things are a pair that the diffusion model is never shown."""
    pairs = itertools.combinations(sorted(placed.file for placed in scene.placed), 2)
    return any(zlib.crc32("+".join(pair).encode()) % HELD_OUT_PAIRS == 0 for pair in pairs)


def unnamed() -> tuple[list[str], list[str]]:
    """Files of all drawings without a name in THINGS: those to train an autoencoder on, and those held out."""
    if not FOLDER.is_dir():
        raise FileNotFoundError(f"{FOLDER} is not there: run `make check` first, it installs the drawings.")
    files = sorted(set(file.stem for file in FOLDER.glob("*.webp")) - set(THINGS.values()))
    held_out = [file for file in files if zlib.crc32(file.encode()) % HELD_OUT_SHARE == 0]
    return sorted(set(files) - set(held_out)), held_out


@lru_cache(maxsize=4096)
def drawing(file: str, side: int = 256) -> Image.Image:
    """A drawing alone, RGBA, cut to what can be seen, its longer side at most `side` pixels."""
    with Image.open(FOLDER / f"{file}.webp") as image:
        rgba = image.convert("RGBA")
    rgba = rgba.crop(rgba.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
    rgba.thumbnail((side, side), Image.Resampling.LANCZOS)
    return rgba


def draw_ground(ground: Ground, side: int) -> np.ndarray:
    """(side, side, 3) in 0 to 1."""
    random = np.random.default_rng(ground.seed)
    base = np.array(colorsys.hls_to_rgb(HUES[ground.hue], ground.light, ground.vivid))
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    picture = np.broadcast_to(base, (side, side, 3)).copy()
    if ground.kind == "graded":
        angle = random.uniform(0, 2 * np.pi)
        picture *= 1 + 0.45 * (x * np.cos(angle) + y * np.sin(angle))[..., None]
    if ground.kind == "speckled":
        for _ in range(40):
            cx, cy, radius = *random.uniform(-0.5, 0.5, 2), random.uniform(0.012, 0.03)
            edge = (np.hypot(x - cx, y - cy) - radius) * side
            picture *= 1 - 0.22 * np.clip(0.5 - edge, 0, 1)[..., None]
    return np.clip(picture, 0, 1)


def draw_alone(placed: Placed, side: int) -> tuple[np.ndarray, np.ndarray]:
    """One drawing at its place: colours (side, side, 3) times opacity, and opacity (side, side), 0 to 1."""
    original = drawing(placed.file)
    turned = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if placed.mirrored else original
    premultiplied = np.asarray(turned, np.float32) / 255
    premultiplied[..., :3] *= premultiplied[..., 3:]
    scale = placed.size * side / max(original.size)
    # Output pixel → drawing's pixel: PIL's affine map, prefiltered by a resize when the drawing shrinks.
    width, height = (max(1, round(length * scale)) for length in original.size)
    channels = []
    cos, sin = np.cos(np.radians(placed.angle)), np.sin(np.radians(placed.angle))
    left, top = placed.x * side, placed.y * side
    middle_x, middle_y = width / 2 + BORDER, height / 2 + BORDER
    inverse = (cos, -sin, middle_x - cos * left + sin * top, sin, cos, middle_y - sin * left - cos * top)
    for n in range(4):
        channel = Image.fromarray(premultiplied[..., n]).resize((width, height), Image.Resampling.LANCZOS)
        bordered = Image.fromarray(np.pad(np.asarray(channel), BORDER))
        moved = bordered.transform((side, side), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
        channels.append(np.asarray(moved))
    stacked = np.clip(np.stack(channels, axis=-1), 0, 1)
    return np.minimum(stacked[..., :3], stacked[..., 3:]), stacked[..., 3]


def draw(scene: Scene, side: int = PICTURE) -> tuple[Tensor, Tensor]:
    """A scene's picture (3, side, side) and the opacity of each of its drawings (drawings, side, side), 0 to 1."""
    picture = draw_ground(scene.ground, side)
    masks = []
    for placed in scene.placed:
        colours, opacity = draw_alone(placed, side)
        picture = picture * (1 - opacity[..., None]) + colours
        masks.append(opacity)
    return torch.from_numpy(picture).permute(2, 0, 1).float(), torch.from_numpy(np.array(masks))
