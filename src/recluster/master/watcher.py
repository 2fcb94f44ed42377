"""The watcher: a process that tells the master which files have changed.

Executed by its path, by the master, with a word of JSON: {"paths", "include", "exclude"}. It
says {} when it watches, then {"changed": [paths]} for each batch, a line each, on standard
output; it ends when its standard input does, as it does at the master's end, however that
came. A process and not a thread: who forks workers without exec has no thread beside it, and
watchfiles brings one of its own.
"""

import sys


def main() -> int:
    del sys.path[0]  # our own folder, where a module may be called as one of another's
    import fnmatch
    import json
    import os
    import threading

    import watchfiles

    wanted = json.loads(sys.argv[1])
    roots = wanted["paths"]

    def end_with_master() -> None:
        while os.read(0, 1):
            pass
        os._exit(0)

    def matches(path: str, patterns: "list[str]") -> bool:
        """By its name, by the path below what is watched, or by a folder on the way."""
        for root in roots:
            below = os.path.relpath(path, root)
            parts = below.split(os.sep)
            if parts[0] == os.pardir:
                continue
            ways = {path, below, *parts} | {
                os.sep.join(parts[:end]) for end in range(1, len(parts))
            }
            if any(fnmatch.fnmatch(way, pattern) for way in ways for pattern in patterns):
                return True
        return False

    class Chosen(watchfiles.DefaultFilter):  # .git, __pycache__, node_modules and the like
        def __call__(self, change: watchfiles.Change, path: str) -> bool:
            name = os.path.basename(path)
            return (
                super().__call__(change, path)
                and any(fnmatch.fnmatch(name, one) or fnmatch.fnmatch(path, one) for one in include)
                and not matches(path, exclude)
            )

    include, exclude = wanted["include"], wanted["exclude"]
    told = False

    def tell(**said: object) -> None:
        os.write(1, json.dumps(said).encode() + b"\n")

    threading.Thread(target=end_with_master, daemon=True).start()
    for changes in watchfiles.watch(
        *roots,
        watch_filter=Chosen(),
        step=QUIET,
        rust_timeout=LOOK,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        if not told:
            told = True
            tell()
        if changes:
            tell(changed=sorted({path for _, path in changes}))
    return 0


QUIET = 100  # ms without a change that end a batch: who checks a branch out changes many
LOOK = 500  # ms; the first, without a change, tells that it watches

if __name__ == "__main__":
    sys.exit(main())
