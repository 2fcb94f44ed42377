# What the binding has that needs no engine: numbers and words of the C side, the one place that
# raises OSError, arrays for C, and how processes begin and end. Included by _engine.pyx.
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdio cimport fflush
from libc.string cimport memcmp, memcpy

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

import os

DEADLINE = RC_EVENT_DEADLINE
READABLE = RC_EVENT_READABLE
DOOR = RC_EVENT_DOOR
BLIND = RC_EVENT_BLIND
LISTENING = RC_EVENT_LISTENING
ACCEPTING = RC_EVENT_ACCEPTING
DEAF = RC_EVENT_DEAF
MESSAGE = RC_EVENT_MESSAGE
GARBLED = RC_EVENT_GARBLED
EXIT = RC_EVENT_EXIT
GONE = RC_EVENT_GONE
HUNG = RC_EVENT_HUNG
TAKES = RC_EVENT_TAKES
IN_THE_WAY = RC_EVENT_IN_THE_WAY

LONGEST = 1e12  # of a deadline, in seconds: fits 64 bits of milliseconds
LONGEST_WAIT = 2e6  # of a wait: fits 31 bits of them

PRESSURES = ("free", "taking", "busy", "crowded", "blocked", "congested", "hung")

NOTIFY = RC_DOOR_NOTIFY
PRELOAD = RC_DOOR_PRELOAD

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


def resumable(str text):
    """What of a master's workers and lanes, as it has written them down, this version does not
    know; None: it can take them over."""
    cdef const char *wrong = NULL
    cdef bytes raw = text.encode()
    if rc_resumable(raw, <size_t>len(raw), &wrong) == 0:
        return None
    return (<bytes>wrong).decode() if wrong != NULL else "its text"


def finalize_and_die(int number):
    """Finalize, then die by that signal, as Python does after an unhandled ^C."""
    Py_FinalizeEx()
    # No interpreter from here on.
    signal(number, SIG_DFL)
    kill(getpid(), number)
    _exit(128 + number)


def leave(int code):
    """End without finalizing, but with what C libraries have to write out."""
    fflush(NULL)
    _exit(code)


def forget_file_pages():
    """In a mold that has imported: what only that has read of libraries' files."""
    rc_file_pages_forget()


def fork_worker(int line, int channel, int traps, bint ours):
    """In a mold: the worker's pid, 0 in the worker. Raises OSError."""
    PyOS_BeforeFork()
    cdef pid_t pid = rc_mold_fork(line, channel, traps, ours)
    if pid == 0:
        PyOS_AfterFork_Child()
        return 0
    PyOS_AfterFork_Parent()
    return _check(pid, "fork")


cdef void *_random_state(object capsule) except NULL:
    """Of a bit generator of numpy: numpy/random/bitgen.h says that its struct begins with it."""
    return (<void **>PyCapsule_GetPointer(capsule, "BitGenerator"))[0]


def random_state_is(object capsule, bytes held):
    """Whether that memory holds these bytes. Raises ValueError for another capsule."""
    return memcmp(_random_state(capsule), <const char *>held, len(held)) == 0


def set_random_state(object capsule, bytes wanted):
    memcpy(_random_state(capsule), <const char *>wanted, len(wanted))


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
