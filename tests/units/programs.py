"""Real processes that stand for workers in tests of what the engine sees of them."""

import contextlib
import os
import subprocess
import sys

from .harness import Clock, Engine

# Each waits for connections, and after one byte on stdin does something else.
WAITS = {
    "accept": "lane.accept()",
    "poll": "p = select.poll(); p.register(lane); p.register(0); p.poll()",
    "select": "select.select([lane, 0], [], [])",
    "epoll": "e = select.epoll(); e.register(lane); e.register(0); e.poll()",
}
WORKS = {
    "sleep": "time.sleep(1000)",
    "sleep by select": "select.select([], [], [], 1000)",
    "sleep by poll": "select.poll().poll(1000000)",
    "runs": "while True: pass",
    "reads": "os.read(0, 1)",
}


@contextlib.contextmanager
def program(code):
    """A worker that runs this."""
    code = "import os, select, socket, time; lane = socket.create_server(('127.0.0.1', 0))\n" + code
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def doing(engine, worker, wanted):
    """Looks until it is that: the process may not have come so far yet."""
    clock = Clock(20)
    while engine.lib.rc_worker_activity(worker) != wanted:
        clock.left_ms()
        os.sched_yield()
    return True


@contextlib.contextmanager
def programs_as_workers(ffi, lib, *codes):
    """(engine with balance=auto, its processes, lanes, all by number): each runs a code,
    and its lane is ours. All wait for connections."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Engine(ffi, lib))
        lib.rc_balance(engine.pointer, lib.RC_BALANCE_AUTO)
        processes, lanes, address = {}, {}, ("127.0.0.1", 0)
        for number, code in enumerate(codes, 1):
            processes[number] = stack.enter_context(program(code))
            lanes[number] = stack.enter_context(engine.lane(number, address))
            address = lanes[number].getsockname()
        engine.steer(*lanes)
        for number, process in processes.items():
            worker = lib.rc_find(engine.struct, number)
            worker.pid = process.pid
            group = engine.struct.groups
            for lane in group.lanes[0 : group.count]:
                if lane.worker == worker:
                    lane.by_leader = True
            assert doing(engine, worker, lib.RC_ACTIVITY_WAIT)
        try:
            yield engine, processes, lanes
        finally:
            for number in processes:
                lib.rc_find(engine.struct, number).pid = 0
