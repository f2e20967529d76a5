"""The way to the web page: values that it asks for, and whose page it is."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from server import PromptServer

DEFAULT_USER = "default"

_users: dict[str, str] = {}  # client id of a page → its user, in the host's multi-user mode


def offer(route: str, values: Callable[[str], list[dict[str, Any]]]) -> None:
    """Let the page ask for values under a route, where there is a server.

    Args:
        values: called with the user that asks, outside the server's event loop: it may read files.
    """
    server = getattr(PromptServer, "instance", None)  # a script that samples has no server
    if server is None or any(getattr(each, "path", None) == route for each in server.routes):
        return  # a second copy of the pack may have been installed

    @server.routes.get(route)
    async def answer(request: web.Request) -> web.Response:
        try:
            user = server.user_manager.get_request_user_id(request)
        except KeyError:  # the host knows no such user
            raise web.HTTPUnauthorized from None
        if client := request.query.get("client_id"):
            _users[client] = user
        return web.json_response(await asyncio.to_thread(values, user))


def say_on_node(text: str, node_id: str | None) -> None:
    """Show a sentence on a node while it runs, where there is a page."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id, server.client_id)


def user_of_this_prompt() -> str:
    """The user whose page queued the prompt that is running; the default user where that is not known."""
    server = getattr(PromptServer, "instance", None)
    return DEFAULT_USER if server is None else _users.get(server.client_id or "", DEFAULT_USER)


def clients_of(user: str) -> list[str]:
    """Client ids of a user's pages."""
    return [client for client, of in _users.items() if of == user]
