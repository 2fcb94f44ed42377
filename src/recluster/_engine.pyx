# cython: language_level=3, freethreading_compatible=True
"""The C engine (csrc/recluster.h), bound. Thin: no policy, no state of its own.

Exactly one place raises OSError (`_check`), and it names the operation.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Child() except *
    void PyOS_AfterFork_Parent()
    int Py_FinalizeEx()

cdef extern from "signal.h" nogil:
    ctypedef void (*handler_type)(int)
    handler_type SIG_DFL
    handler_type signal(int number, handler_type handler)
    int kill(int pid, int number)

cdef extern from "unistd.h" nogil:
    int getpid()
    void _exit(int status)

cdef extern from "errno.h" nogil:
    int EAGAIN

cdef extern from "arpa/inet.h" nogil:
    int AF_INET
    const char *inet_ntop(int family, const void *host, char *out, unsigned room)

import os

SIGNAL = RC_EVENT_SIGNAL
DEADLINE = RC_EVENT_DEADLINE
READABLE = RC_EVENT_READABLE
DOOR = RC_EVENT_DOOR
LISTENING = RC_EVENT_LISTENING
DEAF = RC_EVENT_DEAF
MESSAGE = RC_EVENT_MESSAGE
GARBLED = RC_EVENT_GARBLED
EXIT = RC_EVENT_EXIT
GONE = RC_EVENT_GONE
HUNG = RC_EVENT_HUNG
TAKES = RC_EVENT_TAKES

PRESSURES = ("free", "taking", "busy", "crowded", "blocked", "congested", "hung")

NOTIFY = RC_DOOR_NOTIFY
PRELOAD = RC_DOOR_PRELOAD

LISTEN_PASSES = RC_LISTEN_PASSES
SHIM_RECEIVES = (<bytes>RC_SHIM_RECEIVES).decode()
POLICIES = {
    "auto": RC_BALANCE_AUTO,
    "reuseport": RC_BALANCE_REUSEPORT,
    "shared": RC_BALANCE_SHARED,
    "source_ip": RC_BALANCE_SOURCE_IP,
    "weighted": RC_BALANCE_WEIGHTED,
    "round_robin": RC_BALANCE_ROUND_ROBIN,
    "least_connections": RC_BALANCE_LEAST_CONNECTIONS,
}


cdef object _check(object result, str operation):
    """The result of a C call, or OSError: its errno, and what was attempted."""
    if result < 0:
        raise OSError(-result, f"{operation}: {os.strerror(-result)}")
    return result


def door_probe():
    """None if the seccomp door works here, else (what was refused, errno)."""
    cdef const char *refused = NULL
    cdef int result = rc_door_probe(&refused)
    if result == 0:
        return None
    return (<bytes>refused).decode(), -result


def finalize_and_die(int number):
    """Finalize, then die by that signal, as Python does after an unhandled ^C."""
    Py_FinalizeEx()
    # No interpreter from here on.
    signal(number, SIG_DFL)
    kill(getpid(), number)
    _exit(128 + number)


def receive_connection(int fd):
    """(descriptor, address as accept(2) gives it) of what the master passed, or None."""
    cdef rc_connection got
    cdef char text[64]
    cdef int result = rc_receive_connection(fd, &got)
    if result == -EAGAIN:
        return None
    _check(result, "receive a connection")
    inet_ntop(got.family, got.host, text, sizeof(text))
    host = (<bytes>text).decode()
    if got.family == AF_INET:
        return got.fd, (host, got.port)
    return got.fd, (host, got.port, got.flow, got.scope)


cdef char **_vector(list strings) except NULL:
    """A NULL-terminated array into the bytes objects, which the caller keeps."""
    cdef char **vector = <char **>PyMem_Malloc((len(strings) + 1) * sizeof(char *))
    if vector == NULL:
        raise MemoryError()
    cdef Py_ssize_t at
    for at in range(len(strings)):
        vector[at] = <char *><bytes>strings[at]
    vector[len(strings)] = NULL
    return vector


cdef uint32_t *_numbers(object numbers, size_t *count) except NULL:
    """An array of them, which the caller frees, and how many they are."""
    cdef list given = list(numbers)
    cdef uint32_t *array = <uint32_t *>PyMem_Malloc((len(given) + 1) * sizeof(uint32_t))
    if array == NULL:
        raise MemoryError()
    cdef Py_ssize_t at
    try:
        for at in range(len(given)):
            array[at] = given[at]
    except BaseException:
        PyMem_Free(array)
        raise
    count[0] = <size_t>len(given)
    return array


cdef class Engine:
    """One engine. Not thread-safe; nothing blocks but `wait`.

    Lengths of time are seconds (float) on CLOCK_MONOTONIC, as `time.monotonic`.
    """
    cdef rc_engine *_engine
    cdef rc_event _events[RC_EVENTS_MIN]

    def __cinit__(self, bint subreaper=False):
        _check(rc_engine_new(&self._engine, RC_SUBREAPER if subreaper else 0), "start the engine")

    def __dealloc__(self):
        rc_engine_free(self._engine)

    cdef rc_engine *_alive(self) except NULL:
        if self._engine == NULL:
            raise ValueError("the engine is closed")
        return self._engine

    def close(self):
        """Kill what still runs, close every lane, undo the signal mask."""
        cdef rc_engine *engine = self._engine
        self._engine = NULL
        rc_engine_free(engine)

    def fileno(self):
        return rc_engine_fd(self._alive())

    def signals(self, numbers):
        cdef int wanted[64]
        cdef size_t count = 0
        for number in numbers:
            wanted[count] = number
            count += 1
        _check(rc_signals(self._alive(), wanted, count), "signalfd")

    def deadline(self, at):
        """Wake at that time (seconds of time.monotonic); None: not at all."""
        cdef int64_t at_ms = -1 if at is None else max(0, <int64_t>(at * 1000.0) + 1)
        _check(rc_deadline(self._alive(), at_ms), "timerfd_settime")

    def descriptors(self, unsigned wanted):
        """Raise RLIMIT_NOFILE to that many; False if it cannot be."""
        return rc_descriptors(self._alive(), wanted) == 0

    def watch(self, int fd):
        _check(rc_watch(self._alive(), fd), "watch")

    def unwatch(self, int fd):
        _check(rc_unwatch(self._alive(), fd), "unwatch")

    def wait(self, timeout):
        """Events as (kind, worker, value, text or None); None waits for ever."""
        cdef rc_engine *engine = self._alive()
        cdef int timeout_ms = -1 if timeout is None else <int>(timeout * 1000.0)
        cdef int count
        with nogil:
            count = rc_wait(engine, self._events, RC_EVENTS_MIN, timeout_ms)
        _check(count, "epoll_wait")
        cdef list found = []
        cdef int at
        for at in range(count):
            text = None
            if self._events[at].text != NULL:
                text = self._events[at].text[:self._events[at].length]
            found.append((<int>self._events[at].kind, self._events[at].worker,
                          self._events[at].value, text))
        return found

    def shim_open(self):
        _check(rc_shim_open(self._alive()), "open the preload door")

    def shim_address(self, uint32_t worker):
        cdef char text[128]
        _check(rc_shim_address(self._alive(), worker, text, sizeof(text)), "name the door")
        return (<bytes>text).decode()

    def expect_paths(self):
        """Workers will listen on paths: see to it that these do not go missing."""
        _check(rc_expect_paths(self._alive()), "expect paths")

    def inherit(self, int fd, bint ours):
        """Take a listening (or bound UDP) socket, for the workers that bind its address."""
        _check(rc_inherit(self._alive(), fd, ours), "inherit a socket")

    def new_worker(self, uint32_t worker, uint32_t heir_of, uint32_t slot=0, uint32_t party=0,
                   uint32_t generation=0):
        """Make its channel; returns the number its end has in the child. Workers
        of one party (not 0) share their lanes, those of a generation AF_UNIX listeners."""
        cdef int channel = -1
        _check(rc_worker_new(self._alive(), worker, heir_of, &channel), "socketpair")
        _check(rc_worker_place(self._engine, worker, slot, party, generation), "place a worker")
        return channel

    def fork(self, uint32_t worker, int door):
        """Fork a worker; 0 in the child, where this engine is closed."""
        cdef rc_engine *engine = self._alive()
        PyOS_BeforeFork()
        cdef pid_t pid = rc_worker_fork(engine, worker, <rc_door_kind>door)
        if pid == 0:
            PyOS_AfterFork_Child()
            self._engine = NULL
            rc_engine_abandon(engine)
            return 0
        PyOS_AfterFork_Parent()
        return _check(pid, "fork")

    def exec(self, uint32_t worker, int door, list argv, list env, cwd):
        """Fork and execve; argv[0] is the path, env is b"NAME=value"."""
        cdef rc_engine *engine = self._alive()
        cdef rc_program program
        cdef pid_t pid
        cdef bytes where = b"" if cwd is None else cwd
        program.argv = NULL
        program.envp = NULL
        try:
            program.argv = _vector(argv)
            program.envp = _vector(env)
            program.path = program.argv[0]
            program.cwd = NULL if cwd is None else <const char *>where
            pid = rc_worker_exec(engine, worker, <rc_door_kind>door, &program)
        finally:
            PyMem_Free(program.argv)
            PyMem_Free(program.envp)
        return _check(pid, "fork")

    def signal(self, uint32_t worker, int number):
        """Signal the leader through its pidfd; False if it has been reaped."""
        cdef int result = rc_worker_signal(self._alive(), worker, number)
        return result == 0

    def kill(self, uint32_t worker):
        """SIGKILL to the whole process group; False if it has been reaped."""
        return rc_worker_kill(self._alive(), worker) == 0

    def send(self, uint32_t worker, bytes line):
        """Queue one line; False if the channel is closed or its queue is full."""
        return rc_worker_send(self._alive(), worker, line, len(line)) >= 0

    def release(self, uint32_t worker):
        """Forget a dead worker and drop the lanes nobody adopted."""
        _check(rc_worker_release(self._alive(), worker), "release a worker")

    def balance(self, str policy):
        """Which lane a new connection gets; before the first lane."""
        _check(rc_balance(self._alive(), POLICIES[policy]), "balance")

    def flows_stay(self, double seconds):
        """How long UDP flows stay with a worker that retires, where the kernel can do it."""
        _check(rc_flows_stay(self._alive(), <unsigned int>(min(seconds, 1e6) * 1000)), "flows")

    def balance_kernel(self):
        """Have the kernel do it: None, or (what was refused, errno)."""
        cdef const char *refused = NULL
        cdef int result = rc_balance_kernel(self._alive(), &refused)
        if result == 0:
            return None
        return (<bytes>refused).decode(), -result

    def balance_dispatch(self):
        """Have the master do it: accept, and hand out; before the first worker."""
        _check(rc_balance_dispatch(self._alive()), "dispatch")

    def balance_how(self):
        """Which way of dispatch is in use; "" without dispatch."""
        return (<bytes>rc_balance_how(self._alive())).decode()

    def steer(self, live, weights=None):
        """From now on new connections go to the lanes of these workers only, by
        weight: 1 where `weights` (worker: number) does not say."""
        cdef rc_engine *engine = self._alive()
        cdef list ids = list(live)
        cdef rc_live *array = <rc_live *>PyMem_Malloc((len(ids) + 1) * sizeof(rc_live))
        if array == NULL:
            raise MemoryError()
        cdef Py_ssize_t at
        try:
            for at in range(len(ids)):
                array[at].worker = ids[at]
                array[at].weight = 1.0 if weights is None else weights.get(ids[at], 1.0)
            _check(rc_steer(engine, array, <size_t>len(ids)), "steer")
        finally:
            PyMem_Free(array)

    def close_lanes(self, uint32_t worker=0):
        """Take no new SYN on these lanes (0: all); finish what is under way."""
        _check(rc_close_lanes(self._alive(), worker), "close lanes")

    def queued(self, uint32_t worker):
        """Connections that wait to be accepted in this worker's lanes."""
        return _check(rc_queued(self._alive(), worker), "TCP_INFO")

    def deaf(self, uint32_t worker):
        """Find the lanes that this worker, alive, has given up; returns how many
        connections wait in them."""
        return _check(rc_deaf(self._alive(), worker), "look for deaf lanes")

    def hold(self, bytes address, bint on):
        """Whether lanes that nobody holds take new connections there. Returns how
        many groups have the address."""
        return _check(rc_hold(self._alive(), address, on), "hold")

    def lanes(self):
        """(worker, address, chosen, queued, backlog, pressure, holders, connections or
        None) of every lane."""
        cdef int count = _check(rc_lanes(self._alive(), NULL, 0), "lanes")
        cdef rc_lane_facts *facts = <rc_lane_facts *>PyMem_Malloc(
            (count + 1) * sizeof(rc_lane_facts))
        if facts == NULL:
            raise MemoryError()
        cdef int at
        try:
            count = rc_lanes(self._engine, facts, count)
            return [(facts[at].worker, (<bytes>facts[at].address).decode(),
                     bool(facts[at].chosen), facts[at].queued, facts[at].backlog,
                     PRESSURES[facts[at].pressure], facts[at].holders,
                     None if facts[at].connections < 0 else facts[at].connections)
                    for at in range(count)]
        finally:
            PyMem_Free(facts)

    def drain_begin(self, workers):
        """These are not steered to any more: remember their open handshakes."""
        cdef rc_engine *engine = self._alive()
        cdef size_t count = 0
        cdef uint32_t *ids = _numbers(workers, &count)
        try:
            _check(rc_drain_begin(engine, ids, count), "sock_diag")
        finally:
            PyMem_Free(ids)

    def drain_look(self, uint32_t worker):
        """(connections, how many owe, quiet for, half-open, queued) of one; while
        its connections are not known yet, the first three are -1, -1, 0.0."""
        cdef rc_drain_facts facts
        _check(rc_drain_look(self._alive(), worker, &facts), "sock_diag")
        quiet = float("inf") if facts.connections == 0 else facts.quiet_ms / 1000.0
        return facts.connections, facts.owing, quiet, facts.half_open, facts.queued
