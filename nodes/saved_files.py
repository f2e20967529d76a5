"""Files of one kind that nodes save below the host's output, as it does the LoRAs it trains, and load again: the one
shape of every pair of Save and Load nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths
from comfy_api.latest import io
from comfyui_version import __version__ as host_version

from .inputs import CATEGORY

NONE_YET = "none yet: save one, then press R"
ABOUT = {"host": f"ComfyUI {host_version}"}


@dataclass(frozen=True)
class SavedFiles:
    """One kind of files.

    Attributes:
        value: name of the nodes' input and output, and of a file without a name.
        type: the io type of the value.
        title: the value's name in the nodes' names.
        name: one file, for messages: "profile"; `some` what is saved: "a profile".
        folder: below the host's output and below its models.
        category: the nodes', below the pack's.
        made_by: the node that makes the value.
        used_by: the nodes that take it, for a tooltip.
        how: to get a file, for messages.
        save: (value, file, about) writes a file.
        load: reads a file; raises a ValueError that names it where it is damaged.
    """

    value: str
    type: Any
    title: str
    name: str
    some: str
    folder: str
    category: str
    made_by: str
    used_by: str
    how: str
    save: Callable[[Any, Path, dict[str, str]], None]
    load: Callable[[Path], Any]

    def __post_init__(self):
        for below in (folder_paths.models_dir, folder_paths.get_output_directory()):
            folder_paths.add_model_folder_path(self.folder, str(Path(below) / self.folder))

    def names(self) -> list[str]:
        """What a node's list offers."""
        return folder_paths.get_filename_list(self.folder) or [NONE_YET]

    def new(self, prefix: str) -> Path:
        """A file that does not exist yet, in a folder that does. Without a name it takes the value's.

        Raises:
            ValueError: the prefix leads out of the folder.
        """
        path = PurePosixPath(prefix.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(prefix).drive:
            raise ValueError(
                f"filename_prefix: {prefix!r} leads out of output/{self.folder}. Give a name such as {self.value!r}, "
                f"or one in a folder below it, such as 'mine/{self.value}'."
            )
        if not path.name or prefix.endswith(("/", "\\")):
            path = path / self.value
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            f"{self.folder}/{path}", folder_paths.get_output_directory()
        )
        return Path(folder) / f"{name}_{counter:05}_.safetensors"

    def file(self, name: str) -> Path:
        """The file of a name in the list.

        Raises:
            ValueError: there is none yet.
        """
        if name == NONE_YET:
            places = f"output/{self.folder} or models/{self.folder}"
            raise ValueError(
                f"{self.value}_name: there is no {self.name} in {places} yet. {self.how} and press R on the page."
            )
        return Path(folder_paths.get_full_path_or_raise(self.folder, name))


def save_node(files: SavedFiles, node_id: str) -> type[io.ComfyNode]:
    """The node that saves a value as a file."""

    class Save(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=node_id,
                display_name=f"Save {files.title}",
                category=f"{CATEGORY}/{files.category}",
                description=f"Saves {files.some} to output/{files.folder}, for Load {files.title}.",
                inputs=[
                    files.type.Input(files.value, tooltip=f"From {files.made_by}."),
                    io.String.Input(
                        "filename_prefix",
                        default=files.value,
                        tooltip=f"Name of the file below output/{files.folder}.",
                    ),
                ],
                is_output_node=True,
            )

        @classmethod
        def execute(cls, filename_prefix: str, **values: Any) -> io.NodeOutput:
            file = files.new(filename_prefix)
            files.save(values[files.value], file, ABOUT)
            return io.NodeOutput(ui={"text": [str(file)]})

    Save.__name__ = Save.__qualname__ = node_id
    return Save


def load_node(files: SavedFiles, node_id: str) -> type[io.ComfyNode]:
    """The node that loads a value from a file."""
    widget = f"{files.value}_name"

    class Load(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=node_id,
                display_name=f"Load {files.title}",
                category=f"{CATEGORY}/{files.category}",
                description=f"Loads {files.some} for {files.used_by}.",
                inputs=[
                    io.Combo.Input(
                        widget,
                        options=files.names(),
                        tooltip=f"A file in output/{files.folder} or models/{files.folder}.",
                    )
                ],
                outputs=[files.type.Output(display_name=files.value, tooltip=f"For {files.used_by}.")],
            )

        @classmethod
        def execute(cls, **values: str) -> io.NodeOutput:
            return io.NodeOutput(files.load(files.file(values[widget])))

        @classmethod
        def fingerprint_inputs(cls, **values: str) -> float:
            name = values[widget]
            return 0.0 if name == NONE_YET else files.file(name).stat().st_mtime

    Load.__name__ = Load.__qualname__ = node_id
    return Load
