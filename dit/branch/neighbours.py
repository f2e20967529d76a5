"""Another node's wrapper around the model: errors say whose they are, and caches that count calls are refused."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isroutine, unwrap
from pathlib import PurePath
from traceback import walk_tb
from typing import Any

import torch

# Packs' caches that keep a state for the positive and one for the negative, call by call. A wrapper is theirs when the
# name of its module or its class has one of these in it (WanVideoTeaCacheKJ), or its function is called so.
_COUNTING_CACHES = {"teacache", "fbcache", "firstblockcache", "magcache"}
_REMEDY = "Remove that node, or Detail Guidance."


@contextmanager
def naming_neighbour(wrapper: Callable[..., Any] | None) -> Iterator[None]:
    """While it lasts, an error raised inside another node's wrapper around the model names that wrapper.

    Errors from deeper down, and the device's running out of memory, which the host handles itself, pass unchanged.

    Args:
        wrapper: the host's "model_function_wrapper"; None where no node has set one.

    Raises:
        ValueError: the wrapper is a cache that counts the calls of the model.
        RuntimeError: the wrapper failed.
    """
    if wrapper is None:
        yield
        return
    while isinstance(wrapper, partial):
        wrapper = wrapper.func
    function = unwrap(wrapper if isroutine(wrapper) else type(wrapper).__call__)
    # The host names a pack's modules by the path of its folder.
    module = PurePath(getattr(function, "__module__", None) or "").name
    full_name = f"{module}.{getattr(function, '__qualname__', repr(function))}"
    name = full_name.removesuffix(".__call__")
    if _counts_calls(full_name):
        raise ValueError(
            f"Detail Guidance cannot work beside {name}: it keeps a state for the positive and one for the negative, "
            f"from call to call, and the detail rows are neither. {_REMEDY}"
        )
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (LookupError, TypeError, RuntimeError) as error:
        (*_, (deepest, _)) = walk_tb(error.__traceback__)
        code = getattr(function, "__code__", None)  # built-in functions have none
        if code is None or deepest.f_code.co_filename != code.co_filename:
            raise
        raise RuntimeError(
            f"{name}, another node's wrapper around the model, failed beside Detail Guidance: "
            f"{type(error).__name__}: {error}. {_REMEDY}"
        ) from error


def _counts_calls(name: str) -> bool:
    """Whether the dotted name of a function is a counting cache's."""
    *around, own = (re.sub(r"[^a-z]", "", part.lower()) for part in name.split("."))
    return own in _COUNTING_CACHES or any(cache in part for part in around for cache in _COUNTING_CACHES)
