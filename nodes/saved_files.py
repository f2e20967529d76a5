"""Files of one kind that nodes save below the host's output, as it does the LoRAs it trains, and load again."""

from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfyui_version import __version__ as host_version

NONE_YET = "none yet: save one, then press R"
ABOUT = {"host": f"ComfyUI {host_version}"}


@dataclass(frozen=True)
class SavedFiles:
    """
    Attributes:
        folder: below the host's output and below its models.
        name: of one of them, for messages.
        how: to get one, for messages.
    """

    folder: str
    name: str
    how: str

    def __post_init__(self):
        for below in (folder_paths.models_dir, folder_paths.get_output_directory()):
            folder_paths.add_model_folder_path(self.folder, str(Path(below) / self.folder))

    def names(self) -> list[str]:
        """What a node's list offers."""
        return folder_paths.get_filename_list(self.folder) or [NONE_YET]

    def new(self, prefix: str) -> Path:
        """A file that does not exist yet, in a folder that does."""
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            f"{self.folder}/{prefix}", folder_paths.get_output_directory()
        )
        return Path(folder) / f"{name}_{counter:05}_.safetensors"

    def file(self, name: str, widget: str) -> Path:
        """
        Raises:
            ValueError: there is none yet.
        """
        if name == NONE_YET:
            places = f"output/{self.folder} or models/{self.folder}"
            raise ValueError(f"{widget}: there is no {self.name} in {places} yet. {self.how} and press R on the page.")
        return Path(folder_paths.get_full_path_or_raise(self.folder, name))

    def changed(self, name: str) -> float:
        """When it was last written."""
        return 0.0 if name == NONE_YET else self.file(name, "").stat().st_mtime
