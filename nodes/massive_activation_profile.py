"""Saving a profile and loading it again."""

from comfy_api.latest import io

from ..methods.massive_activations import profile as profiles
from .inputs import CATEGORY, DetailGuidanceProfile
from .saved_files import ABOUT, SavedFiles

FILES = SavedFiles("massive_activations", "profile", "Run Massive Activation Probe, save its profile,")


class SaveMassiveActivationProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveMassiveActivationProfile",
            display_name="Save Massive Activation Profile",
            category=CATEGORY,
            description=f"Saves a profile to output/{FILES.folder}, where Load Massive Activation Profile finds it.",
            inputs=[
                DetailGuidanceProfile.Input("profile", tooltip="From Massive Activation Probe."),
                io.String.Input(
                    "filename_prefix", default="profile", tooltip=f"Name of the file below output/{FILES.folder}."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, profile: profiles.Profile, filename_prefix: str) -> io.NodeOutput:
        file = FILES.new(filename_prefix)
        profiles.save(profile, file, ABOUT)
        return io.NodeOutput(ui={"text": [str(file)]})


class LoadMassiveActivationProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadMassiveActivationProfile",
            display_name="Load Massive Activation Profile",
            category=CATEGORY,
            description="Loads a profile for Detail Guidance Options.",
            inputs=[
                io.Combo.Input(
                    "profile_name",
                    options=FILES.names(),
                    tooltip=f"A file in output/{FILES.folder} or models/{FILES.folder}.",
                )
            ],
            outputs=[DetailGuidanceProfile.Output(display_name="profile", tooltip="For Detail Guidance Options.")],
        )

    @classmethod
    def execute(cls, profile_name: str) -> io.NodeOutput:
        return io.NodeOutput(profiles.load(FILES.file(profile_name, "profile_name")))

    @classmethod
    def fingerprint_inputs(cls, profile_name: str) -> float:
        return FILES.changed(profile_name)
