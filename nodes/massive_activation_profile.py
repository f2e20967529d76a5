"""Saving a profile and loading it again."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io
from comfyui_version import __version__ as host_version

from ..detail_guidance import profile as profiles
from .inputs import CATEGORY, DetailGuidanceProfile

NONE_YET = "none yet: save one, then press R"
FOLDER = "massive_activations"  # below the host's output, as for the LoRAs it trains, and below its models

for below in (folder_paths.models_dir, folder_paths.get_output_directory()):
    folder_paths.add_model_folder_path(FOLDER, str(Path(below) / FOLDER))


class SaveMassiveActivationProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveMassiveActivationProfile",
            display_name="Save Massive Activation Profile",
            category=CATEGORY,
            description=f"Saves a profile to output/{FOLDER}, where Load Massive Activation Profile finds it.",
            inputs=[
                DetailGuidanceProfile.Input("profile", tooltip="From Massive Activation Probe."),
                io.String.Input(
                    "filename_prefix", default="profile", tooltip=f"Name of the file below output/{FOLDER}."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, profile: profiles.Profile, filename_prefix: str) -> io.NodeOutput:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            f"{FOLDER}/{filename_prefix}", folder_paths.get_output_directory()
        )
        file = Path(folder) / f"{name}_{counter:05}_.safetensors"
        profiles.save(profile, file, {"host": f"ComfyUI {host_version}"})
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
                    options=folder_paths.get_filename_list(FOLDER) or [NONE_YET],
                    tooltip=f"A file in output/{FOLDER} or models/{FOLDER}.",
                )
            ],
            outputs=[DetailGuidanceProfile.Output(display_name="profile", tooltip="For Detail Guidance Options.")],
        )

    @classmethod
    def execute(cls, profile_name: str) -> io.NodeOutput:
        if profile_name == NONE_YET:
            raise ValueError(
                f"profile_name: there is no profile in output/{FOLDER} or models/{FOLDER} yet. Run Massive Activation "
                "Probe, save its profile, and press R on the page."
            )
        return io.NodeOutput(profiles.load(Path(folder_paths.get_full_path_or_raise(FOLDER, profile_name))))

    @classmethod
    def fingerprint_inputs(cls, profile_name: str) -> float:
        if profile_name == NONE_YET:
            return 0.0
        return Path(folder_paths.get_full_path_or_raise(FOLDER, profile_name)).stat().st_mtime
