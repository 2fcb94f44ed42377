"""asyncio, where the program uses it. Imports nothing of it: whose loop runs has it loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

CO_COROUTINE = 0x80  # of module inspect


def running() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    loaded: Any = sys.modules.get("asyncio")
    return loaded._get_running_loop() if loaded else None


def refuse() -> None:
    """Raises RuntimeError where a loop runs, which would stand still meanwhile."""
    if running() is not None:
        raise RuntimeError(
            "an asyncio loop runs here: use `async with`, and await the handle of a reload"
        )


class Flag:
    """Is set once, and can be awaited, by several."""

    def __init__(self) -> None:
        self._is_set = False
        self._futures: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._is_set = True
        futures, self._futures = self._futures, []
        for future in futures:
            if not future.done():  # who waited may have been cancelled
                future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if self._is_set:
            return
        loop = running()
        if loop is None:
            raise RuntimeError("no asyncio loop runs here")
        future = loop.create_future()
        self._futures.append(future)
        yield from future.__await__()


def is_coroutine_function(callback: object) -> bool:
    function = getattr(callback, "__func__", callback)
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


class Tasks:
    """Coroutines of callbacks, run by the loop. `failed` is told what one raises."""

    def __init__(self, failed: Callable[[object, BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, callback: object, coroutine: Any) -> None:
        """Without a loop it is refused."""
        loop = running()
        if loop is None:
            if hasattr(coroutine, "close"):
                coroutine.close()
            error = RuntimeError("is a coroutine function, and no event loop runs here to await it")
            self._failed(callback, error)
            return
        import asyncio

        task = asyncio.ensure_future(coroutine, loop=loop)
        self._tasks.add(task)  # the loop itself holds them weakly
        task.add_done_callback(lambda task: self._done(callback, task))

    def _done(self, callback: object, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(callback, error)

    async def finish(self) -> None:
        """Until none is under way."""
        import asyncio

        me = asyncio.current_task()
        while others := [task for task in self._tasks if task is not me]:
            await asyncio.wait(others)
