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
    RC_EVENT_DEADLINE,  /* the time given to rc_deadline has come */
    RC_EVENT_READABLE,  /* value: a descriptor given to rc_watch */
    RC_EVENT_DOOR,      /* value: 0 the worker's door is open, else errno */
    RC_EVENT_BLIND,     /* value: errno; a process of the worker may not be looked into */
    RC_EVENT_LISTENING, /* text: "host:port", value: 1 for a lane, 2 for one on which
                           RC_EVENT_ACCEPTING follows, 0 for a private socket */
    RC_EVENT_ACCEPTING, /* after rc_prove: a connection of ours was taken out of each of the
                           worker's lanes; value: 0, or the errno for which none could be made */
    RC_EVENT_DEAF,      /* text: "host:port" where the worker, alive, has given a lane up; value:
                           how many lanes it has left there */
    RC_EVENT_MESSAGE,   /* text: one line of the worker's channel, without newline */
    RC_EVENT_GARBLED,   /* the worker sent a line that is too long; value: its limit */
    RC_EVENT_EXIT, /* value: exit code, or -signal; the worker's last event but RC_EVENT_GONE */
    RC_EVENT_HUNG, /* for a second the worker has taken nothing; value: queued */
    RC_EVENT_IN_THE_WAY, /* text: "ADDRESS GIVEN", where it binds and a given socket that stands
                           in the way of that (rc_inherit) */
    RC_EVENT_TAKES,      /* it takes again */
    RC_EVENT_GONE,       /* nothing that came out of the worker runs any more */
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
enum { RC_STATUS_UNKNOWN = 255 }; /* of RC_EVENT_EXIT: somebody else has reaped the worker */

/* Engine. */
enum { RC_SUBREAPER = 1 /* reap any child: the process is ours alone */ };
int rc_engine_new(rc_engine **out, unsigned flags);
void rc_engine_free(rc_engine *engine); /* in another process than its owner's: nothing */
int rc_engine_fd(const rc_engine *engine);
/* Workers stay in the caller's process group, and keep a terminal that is standard input: what one
 * leaves at its end is the caller's business then (rc_worker_strays). Before the first. */
void rc_foreground(rc_engine *engine);
int rc_signal_handled(rc_engine *engine, int number);   /* the caller has a handler: no worker's */
void rc_reap(rc_engine *engine);                        /* as subreaper, at a SIGCHLD */
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
 * over the fork); then rc_worker_place, and one of rc_worker_fork or rc_worker_exec. */
struct rc_program {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *cwd; /* NULL: the master's */
};
int rc_worker_new(rc_engine *engine, uint32_t worker, uint32_t heir_of, int *channel_fd);
/* As if it had been born as that one's heir: what it listens on from now on adopts the lanes
 * of `heir_of`, once dead. */
int rc_worker_heir(rc_engine *engine, uint32_t worker, uint32_t heir_of);
/* Before it listens. Workers of one party (not 0) share one lane per address. */
int rc_worker_place(rc_engine *engine, uint32_t worker, uint32_t slot, uint32_t party,
                    uint32_t generation);
/* Before it is born: its standard output and error come by these pipes, which are the caller's
 * and non-blocking. (output.c) */
int rc_worker_output(rc_engine *engine, uint32_t worker, int *out, int *err);
pid_t rc_worker_fork(rc_engine *engine, uint32_t worker, enum rc_door_kind door);
pid_t rc_worker_exec(rc_engine *engine, uint32_t worker, enum rc_door_kind door,
                     const struct rc_program *program);
/* Or of a mold, a worker without a door: rc_mold_ask sends it the line, with the channel's end,
 * and rc_worker_adopt takes the pid that it answers with. In the mold: rc_mold_fork, the
 * worker's pid, 0 in the worker; `traps` as rc_worker_traps says, -1: no door; `ours`: the
 * master is a subreaper (mold.c). Before the first: what only importing has read is let go
 * (filepages.c). */
int rc_worker_traps(rc_engine *engine, uint32_t worker);
int rc_mold_ask(rc_engine *engine, uint32_t mold, uint32_t worker, const char *line, size_t length);
int rc_worker_adopt(rc_engine *engine, uint32_t worker, pid_t pid);
pid_t rc_mold_fork(int line, int channel, int traps, int ours);
void rc_file_pages_forget(void);
void rc_engine_abandon(rc_engine *engine); /* in a forked child: close all, touch nothing */
int rc_worker_signal(rc_engine *engine, uint32_t worker, int number);
/* To the worker's server: the leader, or where that is a shell or the like, the topmost process
 * below it that has a lane open. rc_worker_server says which. */
int rc_worker_stop(rc_engine *engine, uint32_t worker, int number);
int rc_worker_server(rc_engine *engine, uint32_t worker);
/* Processes that a worker, dead by now, has left in the background, outside its group;
 * `number`: they get that signal, if not 0. Returns how many there are. (strays.c) */
int rc_worker_strays(rc_engine *engine, uint32_t worker, int number);
int rc_worker_heard(rc_engine *engine, uint32_t worker); /* 1: it has read all that was sent */
int rc_worker_kill(rc_engine *engine, uint32_t worker);  /* SIGKILL, whole process group */
int rc_worker_send(rc_engine *engine, uint32_t worker, const char *line, size_t length);
int rc_worker_release(rc_engine *engine, uint32_t worker); /* forget a dead one; drop its lanes */

/* Who workers become before they run anything, and what the master binds for them that they
 * may not bind themselves (`host`: an address, or NULL for any). Before the first worker. */
struct rc_identity {
    int changes; /* 0: who the master is */
    uint32_t uid, gid;
    const uint32_t *groups;
    size_t count;
    int umask; /* -1: the master's */
};
int rc_worker_identity(rc_engine *engine, const struct rc_identity *wanted);
int rc_allow_bind(rc_engine *engine, const char *host, unsigned port);

/* A listening (or bound UDP) socket for the workers that bind its address; before
 * the first worker. Takes the descriptor on success. `ours`: the caller made it. */
int rc_inherit(rc_engine *engine, int fd, int ours, char *text, size_t room);

/* Lanes that outlive the master, in the hands of somebody who keeps their descriptors: which
 * those are now, and what is to be noted with each (RC_NOTE_MAX; -EXDEV: it cannot be kept after
 * all); and in the next master, before the first worker, rc_restore for each (it takes
 * the descriptor on success) and rc_restored at the end. rc_forsaken, once all workers serve: lanes
 * that none of them has taken go, but for those in which somebody waits; how many do. */
enum { RC_NOTE_MAX = 64 };
struct rc_stored {
    uint64_t inode;
    int fd;
};
int rc_stored_lanes(rc_engine *engine, struct rc_stored *out, size_t room);
int rc_stored_note(const rc_engine *engine, uint64_t inode, char *text, size_t room);
int rc_restore(rc_engine *engine, int fd, const char *note, char *text, size_t room);
int rc_restored(rc_engine *engine);
int rc_forsaken(rc_engine *engine);

/* Workers and lanes that go on under another master in the same process (execve): what is
 * under way and has to be over first, or NULL; all that it has to know, as text for the caller to
 * free; and whether the descriptors of it stay open across the exec. In the next one: what of that
 * text it does not know (-EINVAL), and, before any worker, the taking over; then rc_steer. (carry/)
 */
const char *rc_carry_hindrance(rc_engine *engine);
int rc_carry(rc_engine *engine, char **text, size_t *length);
void rc_carry_keep(rc_engine *engine, int on);
int rc_resumable(const char *text, size_t length, const char **wrong);
int rc_resume(rc_engine *engine, const char *text, size_t length);

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
/* How long the connection of a client that asks for nothing is held when its worker was ended and
 * all was answered (handover.c); 0 until that is said. -EINVAL: negative, or without end. */
int rc_handover_idle(rc_engine *engine, double seconds);
int rc_balance_dispatch(rc_engine *engine);
const char *rc_balance_how(const rc_engine *engine); /* which way of dispatch is in use */

/* Lanes and steering. Of its lanes, steering prefers those with the least: */
enum rc_pressure_kind {
    RC_FREE,
    RC_TAKING,    /* the worker went to work just now, so it may soon be free again; */
    RC_BUSY,      /* it is at work for longer: for it, or for want of a CPU; */
    RC_CROWDED,   /* it has more open than the others; */
    RC_BLOCKED,   /* it is at work for much longer (these four only under RC_BALANCE_AUTO) */
    RC_CONGESTED, /* its queue stands still */
    RC_HUNG,      /* and for a second nothing was taken from it */
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
/* A connection to the worker's first TCP lane, and to nobody else: the descriptor, -ENOENT (it
 * has none), -EAGAIN, or -errno. rc_knock_end when it has been answered. */
int rc_knock(rc_engine *engine, uint32_t worker);
void rc_knock_end(rc_engine *engine, uint32_t worker);
void rc_readers_rest(rc_engine *engine); /* end our threads that have nothing to do */
int rc_prove(rc_engine *engine);         /* find out who accepts; before any worker */
/* Bells (ring.c): connections given to workers that have the library. Before any worker. */
int rc_ring_open(rc_engine *engine);
int rc_ring_opened(const rc_engine *engine);
int rc_receives(rc_engine *engine, uint32_t worker);
/* The worker is to be told to stop: 1, by us within two seconds, or when that was done rc_left_at;
 * 0 or -errno: by the caller, now. */
int rc_hand_over(rc_engine *engine, uint32_t worker, int signal);
/* It gets the signal within a second if at some moment of that all that it has read is answered and
 * can be given to others, and rc_left_at tells; else it is as before. `quiet`, in s: what nothing
 * has moved on for so long is over. */
int rc_move(rc_engine *engine, uint32_t worker, int signal, double quiet);
int64_t rc_left_at(rc_engine *engine, uint32_t worker); /* us; 0: not by us; -1: all was answered */
int rc_give_up(rc_engine *engine, uint32_t worker);     /* what waits in its lanes is for others */
int rc_hands_out(rc_engine *engine, uint32_t worker);   /* 1: they take all that waits there */
int rc_deaf(rc_engine *engine, uint32_t worker);        /* queued in lanes it has given up, alive */
int rc_refuse(rc_engine *engine, const char *address, int on); /* callers of what none claims */
int rc_hold(rc_engine *engine, const char *address, int on);   /* no queueing for the absent */
int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room);

/* What is counted of a worker, also between its exit event and rc_release. */
struct rc_counts {
    int64_t cpu_us;   /* of it and the children that it waited for; 0 while it runs */
    int64_t accepted; /* connections that it got; -1: nobody counts */
    int connections;  /* open ones; -1: nobody counts */
};
int rc_counts(rc_engine *engine, uint32_t worker, struct rc_counts *out);

/* Listeners that did not come by the doors, as of now; how many places there are. */
struct rc_place {
    char address[128];
    unsigned listeners;
    int unsure; /* a connection may come to a lane that is not chosen */
};
int rc_unseen(rc_engine *engine, uint32_t worker, struct rc_place *out, size_t room);
int rc_shared(rc_engine *engine, struct rc_place *out, size_t room); /* others among our lanes */

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
