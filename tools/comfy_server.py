"""A real ComfyUI server in a process of its own, and its HTTP API."""

import asyncio
import json
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import provision

STARTUP_SECONDS = 180


class Server:
    """Runs while it is open as a context. The log is kept and shown when the server does not start.

    Args:
        arguments: further ones of ComfyUI's command line.
        base: where it looks for custom nodes and models; by default where the pack and its reference model are.
        page_settings: of the web page, as if its user had chosen them before.
    """

    def __init__(
        self,
        arguments: tuple[str, ...] = (),
        base: Path | None = None,
        page_settings: dict[str, Any] | None = None,
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.TemporaryDirectory(prefix="comfyui-")
        self.log = Path(self.folder.name) / "server.log"
        settings = Path(self.folder.name) / "default/comfy.settings.json"
        settings.parent.mkdir()
        settings.write_text(json.dumps(page_settings or {}))
        base = base or provision.base_directory()
        self.command = [
            *(str(provision.comfyui_python()), str(provision.comfyui_dir() / "main.py")),
            *("--base-directory", str(base), "--listen", "127.0.0.1", "--port", str(self.port)),
            *("--output-directory", self.folder.name, "--temp-directory", self.folder.name),
            *("--user-directory", self.folder.name, "--database-url", "sqlite:///:memory:"),
            *("--disable-auto-launch", *arguments),
        ]

    async def __aenter__(self) -> "Server":
        cpu = [] if _has_gpu() else ["--cpu"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command + cpu, stdout=log, stderr=subprocess.STDOUT, env=provision.environment()
            )
        self.session = aiohttp.ClientSession(self.url)
        deadline = time.monotonic() + STARTUP_SECONDS
        while not await self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text()
                await self.__aexit__(None, None, None)
                raise RuntimeError(f"ComfyUI did not start. Its log:\n{text[-4000:]}")
            await asyncio.sleep(0.2)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()

    async def _answers(self) -> bool:
        try:
            async with self.session.get("/system_stats") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def run(
        self, prompt: dict[str, Any], on_event: Callable[[str, dict[str, Any]], None] | None = None
    ) -> dict[str, bytes]:
        """Queue a prompt in API format and wait for it: the first picture of each output node, by node id.

        Args:
            on_event: called with the type and data of each message that the page would receive.

        Raises:
            RuntimeError: the host refused the prompt or a node failed; with the host's own words.
        """
        client = uuid.uuid4().hex
        images: dict[str, dict[str, str]] = {}
        async with self.session.ws_connect("/ws", params={"clientId": client}) as socket_:
            async with self.session.post("/prompt", json={"prompt": prompt, "client_id": client}) as answer:
                body = await answer.json()
                if answer.status != 200:
                    raise RuntimeError(f"ComfyUI refused the prompt: {body}")
            async for message in socket_:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = message.json()
                if on_event:
                    on_event(event["type"], event["data"])
                if event["type"] in ("execution_error", "execution_interrupted"):
                    raise RuntimeError(f"{event['data'].get('node_type')}: {event['data'].get('exception_message')}")
                if event["type"] == "executed" and (event["data"]["output"] or {}).get("images"):
                    images[event["data"]["node"]] = event["data"]["output"]["images"][0]
                if event["type"] == "execution_success" and event["data"]["prompt_id"] == body["prompt_id"]:
                    break
            else:
                raise RuntimeError(f"ComfyUI ended in the middle of a run. Its log:\n{self.log.read_text()[-4000:]}")
        return {node: await self._picture(image) for node, image in images.items()}

    async def _picture(self, image: dict[str, str]) -> bytes:
        async with self.session.get("/view", params=image) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def api_format(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """A workflow as the page saves it, in the form that the API takes: what the page does when it queues."""
        definitions = await self.get("/object_info")
        links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
        prompt = {}
        for node in workflow["nodes"]:
            if node["type"] in ("Note", "MarkdownNote"):
                continue
            definition = definitions[node["type"]]
            names = [name for group in definition["input_order"].values() for name in group]
            declared = {**definition["input"].get("required", {}), **definition["input"].get("optional", {})}
            values = iter(node.get("widgets_values", []))
            inputs: dict[str, Any] = {}
            for name in names:
                kind, *settings = declared.get(name, ["HIDDEN"])
                if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                    # A widget that is newer than the workflow has its default, as on the page.
                    inputs[name] = next(values, settings[0].get("default") if settings else None)
                    if settings and settings[0].get("control_after_generate"):
                        next(values, None)  # the page's own "randomize" or "fixed"
            for socket_ in node.get("inputs", []):
                if socket_.get("link") is not None:
                    inputs[socket_["name"]] = links[socket_["link"]]
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        return prompt


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
