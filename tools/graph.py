"""A graph as the page saves it, laid out in columns; what a node has comes from the host's own definitions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
COLUMN = 400
# Room for what nodes show below their widgets after a run, on both pages, in Nodes 2.0 too; a text may be longer: what
# shows one is the last of its column.
SHOWN = {
    "DetailGuider": 160,
    "DetailGuidance": 160,
    "PreviewAny": 250,
    "PreviewImage": 360,
    "MaskPreview": 360,
    "SaveImage": 360,
    "LoadVideo": 260,
    "SaveVideo": 260,
    "DetailCompare": 360,
}
Definitions = dict[str, Any]  # the host's /object_info


@dataclass
class Node:
    """A node of the graph as the page saves it."""

    saved: dict[str, Any]
    outputs: list[str]

    def out(self, name: str) -> "Output":
        return self, self.outputs.index(name)


Output = tuple[Node, int]


@dataclass
class Graph:
    """Nodes in columns, from left to right and from top to bottom."""

    definitions: Definitions
    nodes: list[Node] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    bottom: dict[int, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def node(
        self, kind: str, column: int, models: dict[str, str] | None = None, title: str | None = None, **inputs: Any
    ) -> Node:
        """A node of the host; `inputs` are other nodes' outputs or widgets' values. Widgets not given keep their
        defaults. `models`: folder/file → where to get it. `title`: where the kind's own does not say what it is for."""
        definition = self.definitions[kind]
        declared = {**definition["input"].get("required", {}), **definition["input"].get("optional", {})}
        unknown = inputs.keys() - declared.keys()
        if unknown:
            raise ValueError(f"{kind} has no input {', '.join(sorted(unknown))}.")
        number = len(self.nodes) + 1
        sockets, values = [], []
        for name in (name for group in definition["input_order"].values() for name in group if name in declared):
            of_type, *settings = declared[name]
            options = settings[0] if settings else {}
            socket = {"name": name, "type": of_type, "link": None}
            is_widget = isinstance(of_type, list) or of_type in WIDGETS
            linked = isinstance(inputs.get(name), tuple)
            if is_widget:
                first = of_type[0] if isinstance(of_type, list) and of_type else (options.get("options") or [None])[0]
                usual = options.get("default", first)
                values.append(usual if linked else inputs.get(name, usual))
                if options.get("control_after_generate"):
                    values.append("fixed")
                if not linked:
                    continue
                socket["widget"] = {"name": name}
            if linked:
                source, slot = inputs[name]
                socket["link"] = len(self.links) + 1
                output = source.saved["outputs"][slot]
                self.links.append([socket["link"], source.saved["id"], slot, number, len(sockets), output["type"]])
                output["links"].append(socket["link"])
            sockets.append(socket)
        names = definition["output_name"]
        outputs = [
            {"name": name, "type": kind_, "links": []} for name, kind_ in zip(names, definition["output"], strict=True)
        ]
        properties: dict[str, Any] = {"Node name for S&R": kind}
        if models:
            properties["models"] = [
                {"name": Path(path).name, "url": url, "directory": str(Path(path).parent)}
                for path, url in models.items()
            ]
        text = any(len(kind_) > 1 and kind_[1].get("multiline") for kind_ in declared.values())
        height = 20 + 22 * max(len(sockets), len(outputs)) + 26 * len(values) + 90 * text + SHOWN.get(kind, 0)
        saved = {"type": kind, "inputs": sockets, "outputs": outputs, "properties": properties}
        node = Node(saved | ({"title": title} if title else {}), names)
        return self._placed(node, column, height, values)

    def note(self, column: int, text: str) -> Node:
        lines = sum(1 + len(line) // 48 for line in text.splitlines())
        node = Node({"type": "MarkdownNote", "inputs": [], "outputs": [], "properties": {}}, [])
        return self._placed(node, column, 50 + 19 * lines, [text])

    def group(self, title: str, *nodes: Node) -> None:
        left, top = (min(node.saved["pos"][axis] for node in nodes) for axis in (0, 1))
        right, bottom = (max(node.saved["pos"][axis] + node.saved["size"][axis] for node in nodes) for axis in (0, 1))
        bounding = [left - 15, top - 75, right - left + 30, bottom - top + 105]
        self.groups.append({"id": len(self.groups) + 1, "title": title, "bounding": bounding, "color": "#3f789e"})

    def app(self, inputs: list[tuple[Node, str, str]], outputs: list[Node]) -> None:
        """Open as an app, where the page can: these widgets (node, name, label) and what these nodes show."""
        for node, widget, label in inputs:
            socket = {"name": widget, "type": "*", "link": None, "widget": {"name": widget}, "label": label}
            node.saved["inputs"].append(socket)
        shown = {
            "inputs": [[node.saved["id"], widget] for node, widget, _ in inputs],
            "outputs": [node.saved["id"] for node in outputs],
        }
        self.extra = {"linearMode": True, "linearData": shown}

    def _placed(self, node: Node, column: int, height: int, values: list[Any]) -> Node:
        top = self.bottom.get(column, 100)
        self.bottom[column] = top + height + 125
        number = len(self.nodes)
        place = {"pos": [column * COLUMN, top], "size": [COLUMN - 60, height], "flags": {}, "order": number, "mode": 0}
        node.saved = {"id": number + 1, **place, **node.saved, "widgets_values": values}
        self.nodes.append(node)
        return node

    def saved(self, name: str) -> dict[str, Any]:
        return {
            "id": str(uuid5(NAMESPACE_URL, name)),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [node.saved for node in self.nodes],
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": self.extra,
            "version": 0.4,
        }
