/* recluster.h - the engine's whole interface, on one screen.
 *
 * The engine knows workers (processes), lanes (listening sockets) and the group
 * each lane belongs to. It knows nothing of slots, generations or policy: the
 * caller numbers its workers, says which of them are live, and is told what
 * happened by events.
 *
 * Every fallible function returns 0, a count, or -errno; outputs are written
 * only on success. Nothing blocks but rc_wait. Nothing here is thread-safe: one
 * thread owns an engine. Linux 5.15 or newer.
 */
#ifndef RECLUSTER_H
#define RECLUSTER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct rc_engine rc_engine;

enum rc_event_kind {
    RC_EVENT_SIGNAL,    /* value: signal number */
    RC_EVENT_DEADLINE,  /* the time given to rc_deadline has come */
    RC_EVENT_READABLE,  /* value: a descriptor given to rc_watch */
    RC_EVENT_DOOR,      /* value: 0 the worker's door is open, else errno */
    RC_EVENT_LISTENING, /* text: "host:port", value: 1 for a lane, 0 for a private socket */
    RC_EVENT_MESSAGE,   /* text: one line of the worker's channel, without newline */
    RC_EVENT_GARBLED,   /* the worker sent a line that is too long; value: its limit */
    RC_EVENT_EXIT, /* value: exit code, or -signal; the worker's last event but RC_EVENT_GONE */
    RC_EVENT_GONE, /* nothing that came out of the worker runs any more */
};

struct rc_event {
    enum rc_event_kind kind;
    uint32_t worker; /* 0 where no worker is concerned */
    int value;
    const char *text; /* valid until the next rc_wait; not terminated */
    size_t length;
};

/* How bind(2) and listen(2) of a worker reach the master. */
enum rc_door_kind {
    RC_DOOR_NOTIFY,  /* seccomp user notification, seccomp_unotify(2) */
    RC_DOOR_PRELOAD, /* the LD_PRELOAD shim; needs an exec */
};

enum { RC_EVENTS_MIN = 512, RC_LINE_MAX = 1 << 20, RC_SEND_MAX = 1 << 20 };

/* Engine. */
enum { RC_SUBREAPER = 1 /* reap any child: the process is ours alone */ };
int rc_engine_new(rc_engine **out, unsigned flags);
void rc_engine_free(rc_engine *engine);
int rc_engine_fd(const rc_engine *engine);
int rc_signals(rc_engine *engine, const int *numbers, size_t count);
int rc_deadline(rc_engine *engine, int64_t at_ms); /* CLOCK_MONOTONIC; -1: none */
int rc_watch(rc_engine *engine, int fd);
int rc_unwatch(rc_engine *engine, int fd);
int rc_wait(rc_engine *engine, struct rc_event *events, size_t room, int timeout_ms);

/* Door. rc_door_probe tries the real thing on a child of its own and names what
 * was refused. rc_shim_address gives the value of RECLUSTER_SHIM for a worker. */
int rc_door_probe(const char **refused);
int rc_shim_open(rc_engine *engine);
int rc_expect_paths(rc_engine *engine); /* workers will listen on AF_UNIX paths: see to unlink(2) */
int rc_shim_address(const rc_engine *engine, uint32_t worker, char *out, size_t room);

/* Workers. rc_worker_new makes the channel (the child's end keeps its number
 * over the fork); rc_worker_generation, for those of one generation share what
 * cannot be one lane each; then one of rc_worker_fork or rc_worker_exec. */
struct rc_program {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *cwd; /* NULL: the master's */
};
int rc_worker_new(rc_engine *engine, uint32_t worker, uint32_t heir_of, int *channel_fd);
int rc_worker_generation(rc_engine *engine, uint32_t worker, unsigned generation);
pid_t rc_worker_fork(rc_engine *engine, uint32_t worker, enum rc_door_kind door);
pid_t rc_worker_exec(rc_engine *engine, uint32_t worker, enum rc_door_kind door,
                     const struct rc_program *program);
void rc_engine_abandon(rc_engine *engine); /* in a forked child: close all, touch nothing */
int rc_worker_signal(rc_engine *engine, uint32_t worker, int number);
int rc_worker_kill(rc_engine *engine, uint32_t worker); /* SIGKILL, whole process group */
int rc_worker_send(rc_engine *engine, uint32_t worker, const char *line, size_t length);
int rc_worker_release(rc_engine *engine, uint32_t worker); /* forget a dead one; drop its lanes */

/* A listening (or bound UDP) socket for the workers that bind its address; before
 * the first worker. Takes the descriptor on success. `ours`: the caller made it. */
int rc_inherit(rc_engine *engine, int fd, int ours);

/* Which lane a new connection gets; before the first lane. */
enum rc_policy {
    RC_BALANCE_AUTO,
    RC_BALANCE_REUSEPORT, /* at random */
};
int rc_balance(rc_engine *engine, enum rc_policy policy);

/* Lanes and steering. */
struct rc_lane_facts {
    uint32_t worker;
    int chosen;       /* steering may choose it now */
    unsigned queued;  /* connections that wait to be accepted */
    unsigned backlog; /* how many may */
    char address[128];
};
int rc_steer(rc_engine *engine, const uint32_t *live, size_t count);
int rc_close_lanes(rc_engine *engine, uint32_t worker); /* take no new SYN; finish the rest */
int rc_queued(rc_engine *engine, uint32_t worker);
int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room);

/* Draining: the connections of workers that are not steered to any more. */
struct rc_drain_facts {
    int connections; /* accepted by the worker's processes, not closed; -1: not known yet */
    int owing;       /* of these, how many owe an answer; -1: not known yet */
    int quiet_ms;    /* since a byte last moved on any; INT_MAX without any; 0: not known yet */
    int half_open;   /* handshakes that were under way at rc_drain_begin and are not over */
    unsigned queued; /* waiting in its lanes */
};
int rc_drain_begin(rc_engine *engine, const uint32_t *workers, size_t count); /* at retirement */
int rc_drain_look(rc_engine *engine, uint32_t worker, struct rc_drain_facts *out);

#endif
