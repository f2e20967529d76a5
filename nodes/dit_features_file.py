"""Saving features and loading them again."""

from ..methods.features import features
from .inputs import DiTFeaturesType
from .saved_files import SavedFiles, load_node, save_node

FILES = SavedFiles(
    value="features",
    type=DiTFeaturesType,
    title="DiT Features",
    name="file of features",
    some="features",
    folder="dit_features",
    category="features",
    made_by="DiT Features",
    used_by="Match DiT Features and Show DiT Features",
    how="Run DiT Features, save what it gives,",
    save=features.save,
    load=features.load,
)

SaveDiTFeatures = save_node(FILES, "SaveDiTFeatures")
LoadDiTFeatures = load_node(FILES, "LoadDiTFeatures")
