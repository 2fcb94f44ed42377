# The C surface (csrc/recluster.h), and a word that the preload library knows.
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "sys/types.h" nogil:
    ctypedef int pid_t

cdef extern from "preload/wire.h" nogil:
    const char *RC_SHIM_RECEIVES

cdef extern from "recluster.h" nogil:
    ctypedef struct rc_engine:
        pass

    enum rc_event_kind:
        RC_EVENT_DEADLINE
        RC_EVENT_READABLE
        RC_EVENT_DOOR
        RC_EVENT_BLIND
        RC_EVENT_LISTENING
        RC_EVENT_ACCEPTING
        RC_EVENT_DEAF
        RC_EVENT_MESSAGE
        RC_EVENT_GARBLED
        RC_EVENT_EXIT
        RC_EVENT_HUNG
        RC_EVENT_TAKES
        RC_EVENT_IN_THE_WAY
        RC_EVENT_GONE

    struct rc_event:
        rc_event_kind kind
        uint32_t worker
        int value
        const char *text
        size_t length

    enum rc_door_kind:
        RC_DOOR_NOTIFY
        RC_DOOR_PRELOAD

    enum:
        RC_EVENTS_MIN
        RC_SUBREAPER

    int rc_engine_new(rc_engine **out, unsigned flags)
    void rc_engine_free(rc_engine *engine)
    void rc_engine_abandon(rc_engine *engine)
    void rc_foreground(rc_engine *engine)
    int rc_engine_fd(const rc_engine *engine)
    int rc_signal_handled(rc_engine *engine, int number)
    void rc_reap(rc_engine *engine)
    int rc_deadline(rc_engine *engine, int64_t at_ms)
    int rc_descriptors(rc_engine *engine, unsigned wanted)
    int rc_watch(rc_engine *engine, int fd)
    int rc_unwatch(rc_engine *engine, int fd)
    int rc_wait(rc_engine *engine, rc_event *events, size_t room, int timeout_ms)

    int rc_door_probe(const char **refused)
    int rc_shim_open(rc_engine *engine)
    int rc_expect_paths(rc_engine *engine)
    struct rc_identity:
        int changes
        uint32_t uid, gid
        const uint32_t *groups
        size_t count
        int umask
    int rc_worker_identity(rc_engine *engine, const rc_identity *wanted)
    ctypedef struct rc_stored_t "struct rc_stored":
        uint64_t inode
        int fd
    int rc_stored_lanes(rc_engine *engine, rc_stored_t *out, size_t room)
    enum:
        RC_NOTE_MAX
    int rc_stored_note(const rc_engine *engine, uint64_t inode, char *text, size_t room)
    int rc_restore(rc_engine *engine, int fd, const char *note, char *text, size_t room)
    int rc_restored(rc_engine *engine)
    int rc_forsaken(rc_engine *engine)
    const char *rc_carry_hindrance(rc_engine *engine)
    int rc_carry(rc_engine *engine, char **text, size_t *length)
    void rc_carry_keep(rc_engine *engine, int on)
    int rc_resumable(const char *text, size_t length, const char **wrong)
    int rc_resume(rc_engine *engine, const char *text, size_t length)
    int rc_allow_bind(rc_engine *engine, const char *host, unsigned port)
    int rc_inherit(rc_engine *engine, int fd, int ours, char *text, size_t room)
    int rc_shim_address(const rc_engine *engine, uint32_t worker, char *out, size_t room)

    struct rc_program:
        const char *path
        char **argv
        char **envp
        const char *cwd

    int rc_worker_new(rc_engine *engine, uint32_t worker, uint32_t heir_of, int *channel_fd)
    int rc_worker_heir(rc_engine *engine, uint32_t worker, uint32_t heir_of)
    int rc_worker_place(rc_engine *engine, uint32_t worker, uint32_t slot, uint32_t party,
                        uint32_t generation)
    int rc_worker_output(rc_engine *engine, uint32_t worker, int *out, int *err)
    pid_t rc_worker_fork(rc_engine *engine, uint32_t worker, rc_door_kind door)
    pid_t rc_worker_exec(rc_engine *engine, uint32_t worker, rc_door_kind door,
                         const rc_program *program)
    int rc_worker_traps(rc_engine *engine, uint32_t worker)
    int rc_mold_ask(rc_engine *engine, uint32_t mold, uint32_t worker, const char *line,
                    size_t length)
    int rc_worker_adopt(rc_engine *engine, uint32_t worker, pid_t pid)
    pid_t rc_mold_fork(int line, int channel, int traps, int ours)
    void rc_file_pages_forget()
    int rc_worker_stop(rc_engine *engine, uint32_t worker, int number)
    int rc_worker_server(rc_engine *engine, uint32_t worker)
    int rc_worker_strays(rc_engine *engine, uint32_t worker, int number)
    int rc_worker_heard(rc_engine *engine, uint32_t worker)
    int rc_worker_signal(rc_engine *engine, uint32_t worker, int number)
    int rc_worker_kill(rc_engine *engine, uint32_t worker)
    int rc_worker_send(rc_engine *engine, uint32_t worker, const char *line, size_t length)
    int rc_worker_release(rc_engine *engine, uint32_t worker)

    enum rc_policy:
        RC_BALANCE_AUTO
        RC_BALANCE_REUSEPORT
        RC_BALANCE_SHARED
        RC_BALANCE_SOURCE_IP
        RC_BALANCE_WEIGHTED
        RC_BALANCE_ROUND_ROBIN
        RC_BALANCE_LEAST_CONNECTIONS

    int rc_balance(rc_engine *engine, rc_policy policy)
    int rc_flows_stay(rc_engine *engine, unsigned int ms)
    int rc_handover_idle(rc_engine *engine, double seconds)
    int rc_balance_kernel(rc_engine *engine, const char **refused)
    int rc_balance_dispatch(rc_engine *engine)
    const char *rc_balance_how(const rc_engine *engine)

    struct rc_live:
        uint32_t worker
        double weight

    struct rc_lane_facts:
        uint32_t worker
        unsigned holders
        int chosen
        int pressure
        unsigned queued
        unsigned backlog
        char address[80]
        int connections

    int rc_steer(rc_engine *engine, const rc_live *live, size_t count)
    int rc_close_lanes(rc_engine *engine, uint32_t worker)
    int rc_queued(rc_engine *engine, uint32_t worker)
    int rc_ring_open(rc_engine *engine)
    int rc_ring_opened(const rc_engine *engine)
    int rc_receives(rc_engine *engine, uint32_t worker)
    int rc_hand_over(rc_engine *engine, uint32_t worker, int signal)
    int rc_move(rc_engine *engine, uint32_t worker, int signal, double quiet)
    int64_t rc_left_at(rc_engine *engine, uint32_t worker)
    int rc_give_up(rc_engine *engine, uint32_t worker)
    int rc_hands_out(rc_engine *engine, uint32_t worker)
    int rc_knock(rc_engine *engine, uint32_t worker)
    void rc_knock_end(rc_engine *engine, uint32_t worker)
    void rc_readers_rest(rc_engine *engine)
    int rc_prove(rc_engine *engine)
    int rc_deaf(rc_engine *engine, uint32_t worker)
    int rc_refuse(rc_engine *engine, const char *address, int on)
    int rc_hold(rc_engine *engine, const char *address, int on)
    int rc_lanes(rc_engine *engine, rc_lane_facts *out, size_t room)

    struct rc_counts:
        int64_t cpu_us
        int64_t accepted
        int connections

    int rc_count "rc_counts"(rc_engine *engine, uint32_t worker, rc_counts *out)

    enum: RC_USAGE_PIDS

    struct rc_usage:
        long cpu_ticks
        int64_t resident
        long descriptors
        unsigned count
        pid_t pids[RC_USAGE_PIDS]

    int rc_use "rc_usage"(rc_engine *engine, uint32_t worker, rc_usage *out)

    struct rc_place:
        char address[128]
        unsigned listeners
        int unsure

    int rc_unseen(rc_engine *engine, uint32_t worker, rc_place *out, size_t room)
    int rc_shared(rc_engine *engine, rc_place *out, size_t room)

    struct rc_drain_facts:
        int connections
        int owing
        int quiet_ms
        int half_open
        unsigned queued

    int rc_drain_begin(rc_engine *engine, const uint32_t *workers, size_t count)
    int rc_drain_look(rc_engine *engine, uint32_t worker, rc_drain_facts *out)
