"""ComfyUI's page as its user has it: files dropped, handles dragged, keys pressed, the queue run."""

import json
import re
from asyncio import wait_for
from pathlib import Path
from typing import Any

from comfy_server import Server
from playwright.async_api import Browser, ConsoleMessage, Locator, Page

OUR_FILES = "/extensions/comfyui-detail-guidance/"

# What these pages say without this pack's JavaScript as well.
OF_THE_HOST = (
    r"Failed to load resource",  # ours are looked at by their address, below
    r"Cannot read properties of undefined \(reading 'id'\)\s+at onChange",  # 1.32.9, at every file dropped
    r"cleanup event listeners for graph that was never set up",  # 1.32.9, at every subgraph
    r"ComfyApp graph accessed before initialization",  # 1.49.6, as it opens, also without this pack
    r"Comfy\.AudioWidget' method 'onNodeOutputsUpdated'",  # 1.32.9, at undo: host 0.3.75 sends null for a cached node
    r"Error fetching file size",  # of weights that a workflow names, where there is no internet
    r"fetchJobsRaw|fetchHistoryPage|fetchQueue",  # newer pages ask for what host 0.3.75 does not have
)
DEPRECATIONS_OF_THE_HOST = (
    r"legacy queue/history menu",
    r"\[MaskEditor\] ComfyApp\.open_maskeditor",
    r"^input\.link is deprecated",  # the newest page itself reads it when it configures its first graph
)

LONGEST_RUN = 300  # seconds: beyond, nothing was queued
READY = "() => window.app?.canvas && window.app.extensionManager && document.querySelector('canvas')"
GRAPH = "(window.app.rootGraph ?? window.app.graph)"
DROP = """text => {
  const data = new DataTransfer();
  data.items.add(new File([text], 'dropped.json', { type: 'application/json' }));
  const canvas = document.querySelector('#graph-canvas') ?? document.querySelector('canvas');
  for (const kind of ['dragenter', 'dragover', 'drop'])
    canvas.dispatchEvent(new DragEvent(kind, {
      bubbles: true, cancelable: true, dataTransfer: data, clientX: 700, clientY: 400 }));
}"""


class ComfyPage:
    """
    Attributes:
        complaints: errors and deprecations in the console that the host would not have made without this pack.
        at_start: those while the page opened.
    """

    def __init__(self, page: Page, server: Server, screenshots: Path, name: str):
        self.page = page
        self.server = server
        self.screenshots = screenshots
        self.name = name
        self.complaints: list[str] = []
        self.at_start: list[str] = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self._hear(f"{error}\n{error.stack}", ""))

    @classmethod
    async def open(cls, browser: Browser, server: Server, screenshots: Path, name: str) -> "ComfyPage":
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        opened = cls(page, server, screenshots, name)
        await page.goto(server.url)
        await page.wait_for_function(READY)
        await page.wait_for_function("() => window.LiteGraph.registered_node_types['KSampler']")
        await page.wait_for_timeout(1000)
        opened.at_start = list(opened.complaints)
        return opened

    def _listen(self, message: ConsoleMessage) -> None:
        deprecated = "deprecated" in message.text.lower()
        if message.type == "error":
            self._hear(message.text, message.location["url"])
        elif deprecated and not any(re.search(pattern, message.text) for pattern in DEPRECATIONS_OF_THE_HOST):
            self.complaints.append(message.text)

    def _hear(self, text: str, url: str) -> None:
        ours = OUR_FILES in text or OUR_FILES in url
        if ours or not any(re.search(pattern, text) for pattern in OF_THE_HOST):
            self.complaints.append(f"{text} ({url})")

    # The graph

    async def drop(self, workflow: dict[str, Any]) -> None:
        """Drop a workflow as a file, and wait until the page shows it."""
        await self.page.evaluate(DROP, json.dumps(workflow))
        await self.page.wait_for_function(
            f"count => {GRAPH}.nodes.length === count && !window.app.canvas.graph.isConfiguring",
            arg=len(workflow["nodes"]),
        )
        await self.page.wait_for_timeout(300)
        await self.close_dialogs()

    async def close_dialogs(self) -> None:
        """Such as the one that offers the weights a workflow names."""
        for _ in range(3):
            if not await self.page.locator("[role=dialog]:visible").count():
                return
            await self.page.keyboard.press("Escape")
            await self.page.wait_for_timeout(300)

    async def saved(self) -> dict[str, Any]:
        """The graph as the page saves it."""
        return await self.page.evaluate(f"() => JSON.parse(JSON.stringify({GRAPH}.serialize()))")

    async def prompt(self) -> dict[str, Any]:
        """The graph as the page queues it."""
        return (await self.page.evaluate("() => window.app.graphToPrompt()"))["output"]

    async def values(self, node_type: str = "DetailGuider") -> dict[str, Any]:
        """What a node's ordinary widgets hold, by name."""
        return await self.page.evaluate(
            f"""type => Object.fromEntries({GRAPH}.nodes.find((node) => node.type === type).widgets
                .filter((widget) => widget.serialize !== false).map(({{ name, value }}) => [name, value]))""",
            node_type,
        )

    async def show(self, zoom: float = 1.0, bypassed: bool = False, node_type: str = "DetailGuider") -> None:
        """Bring the Detail Guidance Guider (the bypassed one), or another node, into the middle of the page."""
        find = f"canvas.graph.nodes.find(({{ type, mode }}) => type === '{node_type}' && mode === MODE)"
        find = find.replace("MODE", "4" if bypassed else "0")
        await self.page.evaluate(
            f"""zoom => {{
                const {{ canvas }} = window.app;
                const {{ pos, size }} = {find};
                canvas.ds.scale = zoom;
                canvas.ds.offset[0] = 800 / zoom - pos[0] - size[0] / 2;
                canvas.ds.offset[1] = 500 / zoom - pos[1] - size[1] / 2;
                canvas.setDirty(true, true);
            }}""",
            zoom,
        )
        await self.page.wait_for_timeout(200)
        # 1.32.9's Nodes 2.0 may draw a node elsewhere than it says it is.
        await self.page.evaluate(
            f"""zoom => {{
                const {{ canvas }} = window.app;
                const drawn = document.querySelector(`[data-node-id="${{{find}.id}}"]`)?.getBoundingClientRect();
                if (!drawn?.width) return;
                canvas.ds.offset[0] += (800 - drawn.left - drawn.width / 2) / zoom;
                canvas.ds.offset[1] += (500 - drawn.top - drawn.height / 2) / zoom;
                canvas.setDirty(true, true);
            }}""",
            zoom,
        )
        await self.page.wait_for_timeout(200)

    async def run(self) -> None:
        """Queue the graph with the page's own shortcut and wait for its end."""
        await self.page.evaluate(
            """() => { window.ended = new Promise((resolve) => {
                for (const kind of ['execution_success', 'execution_error'])
                    window.comfyAPI.api.api.addEventListener(kind, () => resolve(kind), { once: true }); }); }"""
        )
        await self.page.keyboard.press("Control+Enter")
        try:
            ended = await wait_for(self.page.evaluate("() => window.ended"), LONGEST_RUN)
        except TimeoutError:
            await self.screenshot("not_ended")
            raise
        assert ended == "execution_success", ended
        await self.page.wait_for_timeout(500)

    # The panel

    def panel(self, number: int = 0) -> Locator:
        return self.page.locator(".detail-guidance").nth(number)

    def slider(self, label: str) -> Locator:
        return self.panel().get_by_role("slider", name=label)

    async def drag(self, handle: Locator, right: float) -> None:
        """Drag a handle by so many pixels of the screen."""
        box = await handle.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        await self.page.mouse.move(x, y)
        await self.page.mouse.down()
        for part in range(1, 6):
            await self.page.mouse.move(x + right * part / 5, y)
        await self.page.mouse.up()

    async def screenshot(self, name: str) -> None:
        await self.page.screenshot(path=self.screenshots / f"{self.name}_{name}.png")
