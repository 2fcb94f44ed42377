# cython: language_level=3, freethreading_compatible=True
"""The C engine (csrc/recluster.h), bound. Thin: no policy, no state of its own.

Exactly one place raises OSError (`_check`, _engine_free.pxi), and it names the operation.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport strcmp

include "_engine_free.pxi"


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

    def abandon(self):
        """In a forked child: close all, act on nothing."""
        cdef rc_engine *engine = self._engine
        self._engine = NULL
        if engine != NULL:
            rc_engine_abandon(engine)

    def close(self):
        """Kill what still runs, close every lane."""
        cdef rc_engine *engine = self._engine
        self._engine = NULL
        rc_engine_free(engine)

    def fileno(self):
        return rc_engine_fd(self._alive())

    def signals(self, numbers):
        """These have handlers of the master's: a worker begins with the default."""
        for number in numbers:
            _check(rc_signal_handled(self._alive(), number), "note a signal")

    def reap(self):
        """As subreaper: a child may have ended that is not a worker."""
        rc_reap(self._alive())

    def deadline(self, at):
        """Wake at that time (seconds of time.monotonic); None: not at all."""
        cdef int64_t at_ms = -1 if at is None else <int64_t>(max(0.0, min(at, LONGEST)) * 1000) + 1
        _check(rc_deadline(self._alive(), at_ms), "timerfd_settime")

    def descriptors(self, unsigned wanted):
        """Raise RLIMIT_NOFILE to that many; False if it cannot be."""
        return rc_descriptors(self._alive(), wanted) == 0

    def watch(self, int fd):
        _check(rc_watch(self._alive(), fd), "watch")

    def unwatch(self, int fd):
        _check(rc_unwatch(self._alive(), fd), "unwatch")

    def wait(self, timeout):
        """Events as (kind, worker, value, text or None); None waits for ever, a number
        for so many seconds, or three weeks if it is more."""
        cdef rc_engine *engine = self._alive()
        cdef int timeout_ms = -1
        if timeout is not None:
            timeout_ms = <int>(max(0.0, min(timeout, LONGEST_WAIT)) * 1000)
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
        """Take a listening (or bound UDP) socket, for the workers that bind its address.
        Returns that, as events name it."""
        cdef char text[128]
        _check(rc_inherit(self._alive(), fd, ours, text, sizeof(text)), "inherit a socket")
        return (<bytes>text).decode(errors="surrogateescape")

    def kept(self):
        """(inode, descriptor) of each lane that may outlive the master; the descriptor stays
        the engine's."""
        cdef int count = _check(rc_stored_lanes(self._alive(), NULL, 0), "look at lanes")
        cdef rc_stored_t *found = <rc_stored_t *>PyMem_Malloc((count + 1) * sizeof(rc_stored_t))
        if found == NULL:
            raise MemoryError()
        try:
            count = min(count, rc_stored_lanes(self._engine, found, <size_t>count))
            return [(found[at].inode, found[at].fd) for at in range(count)]
        finally:
            PyMem_Free(found)

    def note(self, uint64_t inode):
        """What `restore` has to be told of a lane that is kept; raises OSError for one that the
        next master could make no use of."""
        cdef char text[RC_NOTE_MAX]
        _check(rc_stored_note(self._alive(), inode, text, sizeof(text)), "keep a lane")
        return (<bytes>text).decode()

    def restore(self, int fd, str note=""):
        """Take a lane of the master before. Returns its address."""
        cdef char text[128]
        cdef bytes noted = note.encode()
        _check(rc_restore(self._alive(), fd, noted, text, sizeof(text)), "restore a lane")
        return (<bytes>text).decode(errors="surrogateescape")

    def restored(self):
        """All are there: put them in order."""
        _check(rc_restored(self._alive()), "put restored lanes in order")

    def forsaken(self):
        """Drop restored lanes that nobody took and in which nobody waits; how many wait."""
        return _check(rc_forsaken(self._alive()), "look at restored lanes")

    def hindrance(self):
        """What is under way, and has to be over before workers and lanes can go on under another
        master in this process; None: nothing."""
        cdef const char *what = rc_carry_hindrance(self._alive())
        return None if what == NULL else (<bytes>what).decode()

    def carried(self):
        """All that the next one has to know of them, as text."""
        cdef char *text = NULL
        cdef size_t length = 0
        _check(rc_carry(self._alive(), &text, &length), "write down workers and lanes")
        try:
            return (<bytes>text[:length]).decode()
        finally:
            free(text)

    def keep(self, bint on):
        """Whether the descriptors of that stay open across an exec."""
        rc_carry_keep(self._alive(), on)

    def resume(self, str text):
        """Take over what a master before has written down; then `steer`. Before any worker."""
        cdef bytes raw = text.encode()
        _check(rc_resume(self._alive(), raw, <size_t>len(raw)), "take over workers and lanes")

    def identity(self, who, int umask):
        """(uid, gid, groups) that workers become, or None; an umask, or -1."""
        cdef rc_identity wanted
        cdef size_t count = 0
        cdef uint32_t *groups = NULL
        wanted.changes = who is not None
        wanted.uid, wanted.gid = who[:2] if who is not None else (0, 0)
        wanted.umask = umask
        groups = _numbers(who[2] if who is not None else (), &count)
        wanted.groups, wanted.count = groups, count
        try:
            _check(rc_worker_identity(self._alive(), &wanted), "note who workers are")
        finally:
            PyMem_Free(groups)

    def allow_bind(self, host, unsigned port):
        """A worker gets this port though it may not bind it itself; `host` None: any."""
        text = None if host is None else host.encode()
        _check(rc_allow_bind(self._alive(), NULL if text is None else <const char *>text, port),
               "allow a bind")

    def new_worker(self, uint32_t worker, uint32_t heir_of, uint32_t slot=0, uint32_t party=0,
                   uint32_t generation=0):
        """Make its channel; returns the number its end has in the child. Workers
        of one party (not 0) share their lanes, those of a generation AF_UNIX listeners."""
        cdef int channel = -1
        _check(rc_worker_new(self._alive(), worker, heir_of, &channel), "socketpair")
        _check(rc_worker_place(self._engine, worker, slot, party, generation), "place a worker")
        return channel

    def heir(self, uint32_t worker, uint32_t heir_of):
        """The worker adopts, where it listens from now on, the lanes of that dead one."""
        _check(rc_worker_heir(self._alive(), worker, heir_of), "make an heir")

    def foreground(self):
        """Workers stay in our process group and keep the terminal."""
        rc_foreground(self._alive())

    def output(self, uint32_t worker):
        """Before it is born: the ends from which its stdout and stderr are read."""
        cdef int out = -1, err = -1
        _check(rc_worker_output(self._alive(), worker, &out, &err), "pipe")
        return out, err

    def fork(self, uint32_t worker, int door):
        """Fork a worker; 0 in the child, where this engine is closed."""
        cdef rc_engine *engine = self._alive()
        PyOS_BeforeFork()
        cdef pid_t pid = rc_worker_fork(engine, worker, <rc_door_kind>door)
        if pid == 0:
            PyOS_AfterFork_Child()
            self.abandon()
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

    def traps(self, uint32_t worker):
        """What the door of this worker has to stop, for `fork_worker` in a mold."""
        return _check(rc_worker_traps(self._alive(), worker), "look at a worker")

    def ask(self, uint32_t mold, uint32_t worker, bytes line):
        """Have the mold fork this worker: it gets the line, with the channel's end."""
        _check(rc_mold_ask(self._alive(), mold, worker, line, len(line)), "ask the mold")

    def adopt(self, uint32_t worker, int pid):
        """The mold has forked it: let it run."""
        _check(rc_worker_adopt(self._alive(), worker, pid), "adopt a worker")

    def signal(self, uint32_t worker, int number):
        """Signal the leader through its pidfd; False if it has been reaped."""
        cdef int result = rc_worker_signal(self._alive(), worker, number)
        return result == 0

    def stop(self, uint32_t worker, int number):
        """Signal the worker's server, behind a shell or the like too; False if it is gone."""
        return rc_worker_stop(self._alive(), worker, number) == 0

    def server(self, uint32_t worker):
        """The pid that `stop` would signal; 0 if it is gone."""
        return max(0, rc_worker_server(self._alive(), worker))

    def strays(self, uint32_t worker, int number = 0):
        """How many processes a dead worker has left in the background; they get the
        signal, if it is not 0."""
        return max(0, rc_worker_strays(self._alive(), worker, number))

    def heard(self, uint32_t worker):
        """Whether the worker has read all that was sent to it."""
        return rc_worker_heard(self._alive(), worker) == 1

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

    def handover_idle(self, double seconds):
        """How long the connection of a client that asks for nothing is held after its worker was
        ended."""
        _check(rc_handover_idle(self._alive(), min(seconds, 1e9)), "handover_idle")

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

    def ring_open(self):
        """Have bells, by which workers that have the library are given connections. Before
        the first worker."""
        _check(rc_ring_open(self._alive()), "make the page of bells")

    def ring_address(self, uint32_t worker):
        """What the library in that worker asks about bells; "" where there are none."""
        return self.shim_address(worker) if rc_ring_opened(self._alive()) else ""

    def receives(self, uint32_t worker):
        """Whether this worker can be given a connection."""
        return rc_receives(self._alive(), worker) == 1

    def hand_over(self, uint32_t worker, int number):
        """It is to be told to stop: its connections are held. True if it will get the signal
        by itself, within two seconds."""
        return _check(rc_hand_over(self._alive(), worker, number), "hold connections") == 1

    def move(self, uint32_t worker, int number, double quiet):
        """It gets that signal if at some moment of the next second all that it has read is
        answered (`left_at` tells), and its connections go to others; else it is as before.
        `quiet`, in seconds: what nothing has moved on for so long is over. Raises OSError where
        that cannot be now."""
        _check(rc_move(self._alive(), worker, number, quiet), "move connections")

    def left_at(self, uint32_t worker):
        """When it has got the stop signal from the engine (time.monotonic; 0: when all was
        answered), or None."""
        cdef int64_t at = rc_left_at(self._alive(), worker)
        return max(at, 0) / 1e6 if at else None

    def give_up(self, uint32_t worker):
        """What waits in its lanes, and comes there, is for its siblings from now on."""
        _check(rc_give_up(self._alive(), worker), "give a worker up")

    def hands_out(self, uint32_t worker):
        """Whether siblings are given all that waits in its lanes."""
        return rc_hands_out(self._alive(), worker) == 1

    def knock(self, uint32_t worker):
        """The descriptor of a connection to this worker, to ask it something."""
        return _check(rc_knock(self._alive(), worker), "connect to a worker")

    def knock_end(self, uint32_t worker):
        rc_knock_end(self._alive(), worker)

    def rest(self):
        """End the engine's threads that have nothing to do: before a fork without exec."""
        rc_readers_rest(self._alive())

    def prove(self):
        """Find out which workers accept, by a connection to each of their lanes."""
        _check(rc_prove(self._alive()), "prove")

    def deaf(self, uint32_t worker):
        """Find the lanes that this worker, alive, has given up; returns how many
        connections wait in them."""
        return _check(rc_deaf(self._alive(), worker), "look for deaf lanes")

    def refuse(self, bytes address, bint on):
        """Whether who connects there is refused, while no worker listens there."""
        _check(rc_refuse(self._alive(), address, on), "refuse")

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
        cdef list found = []
        try:
            count = rc_lanes(self._engine, facts, count)
            for at in range(count):
                if at == 0 or strcmp(facts[at].address, facts[at - 1].address):
                    address = (<bytes>facts[at].address).decode(errors="surrogateescape")
                found.append((facts[at].worker, address, bool(facts[at].chosen), facts[at].queued,
                              facts[at].backlog, PRESSURES[facts[at].pressure], facts[at].holders,
                              None if facts[at].connections < 0 else facts[at].connections))
            return found
        finally:
            PyMem_Free(facts)

    def counts(self, uint32_t worker):
        """(CPU seconds at its end, connections that it got or None, open ones or None)."""
        cdef rc_counts counts
        _check(rc_count(self._alive(), worker, &counts), "counts")
        return (counts.cpu_us / 1e6, None if counts.accepted < 0 else counts.accepted,
                None if counts.connections < 0 else counts.connections)

    def usage(self, workers):
        """(worker, its processes, their resident bytes, CPU time in ticks, descriptors or 0) of
        each that can be looked at."""
        cdef rc_engine *engine = self._alive()
        cdef rc_usage usage
        found = []
        for worker in workers:
            if rc_use(engine, worker, &usage) == 0:
                found.append((worker, [usage.pids[at] for at in range(usage.count)],
                              usage.resident, usage.cpu_ticks, usage.descriptors))
        return found

    def unseen(self, uint32_t worker):
        """The addresses where it listens though no door has seen it."""
        cdef rc_place places[16]
        cdef int count = _check(rc_unseen(self._alive(), worker, places, 16), "look for listeners")
        return sorted({(<bytes>places[at].address).decode() for at in range(min(count, 16))})

    def shared(self):
        """(address, how many, whether steering is unsure) where others listen too."""
        cdef rc_place places[64]
        cdef int count = _check(rc_shared(self._alive(), places, 64), "look for guests")
        return [((<bytes>places[at].address).decode(), places[at].listeners,
                 bool(places[at].unsure)) for at in range(min(count, 64))]

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
