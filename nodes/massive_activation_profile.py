"""Saving a profile and loading it again."""

from ..methods.massive_activations import profile
from .inputs import DetailGuidanceProfile
from .saved_files import SavedFiles, load_node, save_node

FILES = SavedFiles(
    value="profile",
    type=DetailGuidanceProfile,
    title="Massive Activation Profile",
    name="profile",
    some="a profile",
    folder="massive_activations",
    category="massive activations",
    made_by="Massive Activation Probe",
    used_by="Detail Guidance Options",
    how="Run Massive Activation Probe, save its profile,",
    save=profile.save,
    load=profile.load,
)

SaveMassiveActivationProfile = save_node(FILES, "SaveMassiveActivationProfile")
LoadMassiveActivationProfile = load_node(FILES, "LoadMassiveActivationProfile")
