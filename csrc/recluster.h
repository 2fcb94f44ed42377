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
    RC_EVENT_DEAF,      /* text: "host:port" where the worker, alive, has given a lane up; value:
                           how many lanes it has left there */
    RC_EVENT_MESSAGE,   /* text: one line of the worker's channel, without newline */
    RC_EVENT_GARBLED,   /* the worker sent a line that is too long; value: its limit */
    RC_EVENT_EXIT,  /* value: exit code, or -signal; the worker's last event but RC_EVENT_GONE */
    RC_EVENT_HUNG,  /* the worker was avoided for a second and still takes nothing; value: queued */
    RC_EVENT_TAKES, /* it takes again */
    RC_EVENT_GONE,  /* nothing that came out of the worker runs any more */
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
enum { RC_SLOTS_MAX = 1 << 16 };

/* Engine. */
enum { RC_SUBREAPER = 1 /* reap any child: the process is ours alone */ };
int rc_engine_new(rc_engine **out, unsigned flags);
void rc_engine_free(rc_engine *engine);
int rc_engine_fd(const rc_engine *engine);
int rc_signals(rc_engine *engine, const int *numbers, size_t count);
int rc_deadline(rc_engine *engine, int64_t at_ms);      /* CLOCK_MONOTONIC; -1: none */
int rc_descriptors(rc_engine *engine, unsigned wanted); /* raise RLIMIT_NOFILE to that */
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
/* Before it listens. Workers of one party (not 0) share one lane per address; those
 * of one generation share each AF_UNIX listener. */
int rc_worker_place(rc_engine *engine, uint32_t worker, uint32_t slot, uint32_t party,
                    uint32_t generation);
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
    RC_BALANCE_SHARED,    /* at random; lanes are shared (rc_worker_place) */
    RC_BALANCE_SOURCE_IP, /* by the client's address, to the same slot each time */
    RC_BALANCE_WEIGHTED,  /* at random, by weight */
    RC_BALANCE_ROUND_ROBIN,
    RC_BALANCE_LEAST_CONNECTIONS,
};
int rc_balance(rc_engine *engine, enum rc_policy policy);
/* The last two by eBPF (CAP_BPF; CAP_NET_ADMIN too for the second), and RC_BALANCE_AUTO
 * as the second; on failure `refused` names what was. Or, but for AUTO, by dispatch,
 * before the first worker: the master accepts, and hands out. With neither they are
 * at random. */
int rc_balance_kernel(rc_engine *engine, const char **refused);
/* How long a UDP flow stays with a worker that retires, where CAP_BPF is there. */
int rc_flows_stay(rc_engine *engine, unsigned ms);
int rc_balance_dispatch(rc_engine *engine);
const char *rc_balance_how(const rc_engine *engine); /* which way of dispatch is in use */

/* In a worker: receives a connection in place of accept(2), where the master passes
 * them; the caller marked its backlog with RC_LISTEN_PASSES << 16. -EAGAIN: none. */
enum { RC_LISTEN_PASSES = 0x5263 };
struct rc_connection {
    int fd;
    int family;
    unsigned port, flow, scope;
    unsigned char host[16];
};
int rc_receive_connection(int fd, struct rc_connection *out);

/* Lanes and steering. Of its lanes, steering prefers those with the least: */
enum rc_pressure_kind {
    RC_FREE,
    RC_TAKING,    /* the worker went to work just now, so it may soon be free again; */
    RC_BUSY,      /* it is at work for longer: for it, or for want of a CPU; */
    RC_CROWDED,   /* it has more open than the others; */
    RC_BLOCKED,   /* it is at work for much longer (these four only under RC_BALANCE_AUTO) */
    RC_CONGESTED, /* its queue stands still */
    RC_HUNG,      /* and did so for a second without new ones */
};
struct rc_lane_facts {
    uint32_t worker;  /* of a shared lane, one of them */
    unsigned holders; /* workers that share it */
    int chosen;       /* steering may choose it now */
    int pressure;     /* enum rc_pressure_kind */
    unsigned queued;  /* connections that wait to be accepted */
    unsigned backlog; /* how many may */
    char address[128];
    int connections; /* established and not closed by the worker; -1: nobody counts */
};
struct rc_live {
    uint32_t worker;
    double weight; /* its part against the others'; 0: no new connection */
};
int rc_steer(rc_engine *engine, const struct rc_live *live, size_t count);
int rc_close_lanes(rc_engine *engine, uint32_t worker); /* take no new SYN; finish the rest */
int rc_queued(rc_engine *engine, uint32_t worker);
int rc_deaf(rc_engine *engine, uint32_t worker); /* queued in lanes it has given up, alive */
int rc_hold(rc_engine *engine, const char *address, int on); /* no queueing for the absent */
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
