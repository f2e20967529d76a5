"""Saving features and loading them again."""

from comfy_api.latest import io

from ..methods.features import features as dit_features
from .inputs import CATEGORY, DiTFeaturesType
from .saved_files import ABOUT, SavedFiles

FILES = SavedFiles("dit_features", "file of features", "Run DiT Features, save what it gives,")


class SaveDiTFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveDiTFeatures",
            display_name="Save DiT Features",
            category=CATEGORY,
            description=f"Saves features to output/{FILES.folder}, where Load DiT Features finds them.",
            inputs=[
                DiTFeaturesType.Input("features", tooltip="From DiT Features."),
                io.String.Input(
                    "filename_prefix", default="features", tooltip=f"Name of the file below output/{FILES.folder}."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, features: dit_features.Features, filename_prefix: str) -> io.NodeOutput:
        file = FILES.new(filename_prefix)
        dit_features.save(features, file, ABOUT)
        return io.NodeOutput(ui={"text": [str(file)]})


class LoadDiTFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadDiTFeatures",
            display_name="Load DiT Features",
            category=CATEGORY,
            description="Loads features for Match Features and Show Features.",
            inputs=[
                io.Combo.Input(
                    "features_name",
                    options=FILES.names(),
                    tooltip=f"A file in output/{FILES.folder} or models/{FILES.folder}.",
                )
            ],
            outputs=[DiTFeaturesType.Output(display_name="features", tooltip="For Match Features and Show Features.")],
        )

    @classmethod
    def execute(cls, features_name: str) -> io.NodeOutput:
        return io.NodeOutput(dit_features.load(FILES.file(features_name, "features_name")))

    @classmethod
    def fingerprint_inputs(cls, features_name: str) -> float:
        return FILES.changed(features_name)
