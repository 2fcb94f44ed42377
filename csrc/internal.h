/* internal.h - what the engine's files share. Not installed, not public. Workers and the
 * engine are here; the rest has headers of its own.
 *
 * Direction of dependencies: engine -> spawn, doors (notify, shimdoor) -> bind,
 * listen -> pending, deaf, inherited, udp, unixdoor -> lanes, unix -> kernel, steering,
 * udpflow, sockets; facts -> lanes, unixfacts, diag, holders.
 * At the bottom, knowing nobody: channel, guard, loop, registry.
 */
#ifndef RECLUSTER_INTERNAL_H
#define RECLUSTER_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* Linux only, and says so once; hence this header comes first */
#endif

#include "connections.h"
#include "dispatch.h"
#include "doors.h"
#include "lanes.h"
#include "loop.h"
#include "recluster.h"
#include "sockets.h"
#include "steering.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

/* ---- channel.c: newline-delimited JSON over a stream socket --------------- */

struct rc_buffer {
    char *bytes;
    size_t start, end, room;
};

struct rc_channel {
    struct rc_buffer in, out;
    bool greeted;    /* the hello of the child has been read */
    bool discarding; /* inside a line that is too long */
    bool finished;   /* end of file, or a broken socket */
};

/* What a child says first, with its door's listener attached (or an errno). */
struct rc_hello {
    uint32_t magic;
    int32_t error;
};
#define RC_HELLO_MAGIC 0x72636c31u

int rc_channel_greet(int fd, int door, int error);
int rc_channel_hello(int fd, struct rc_hello *hello, int *door);
int rc_channel_read(struct rc_channel *channel, int fd);
int rc_channel_line(struct rc_channel *channel, const char **line, size_t *length);
bool rc_channel_has_line(const struct rc_channel *channel);
int rc_channel_send(struct rc_channel *channel, int fd, const char *line, size_t length);
int rc_channel_flush(struct rc_channel *channel, int fd);
void rc_channel_free(struct rc_channel *channel);

/* ---- guard.c: kills every slot's processes when the master is gone -------- */

struct rc_guard {
    struct rc_source source; /* pidfd */
    pid_t pid;
    int pipe; /* our write end; its end of file is the master's death */
};

int rc_guard_start(struct rc_guard *guard, int epoll);
int rc_guard_add(const struct rc_guard *guard, pid_t group);
int rc_guard_remove(const struct rc_guard *guard, pid_t group);
bool rc_guard_takes(const struct rc_guard *guard);
void rc_guard_stop(struct rc_guard *guard, int epoll);

/* ---- workers -------------------------------------------------------------- */

struct rc_worker {
    struct rc_grave grave;
    struct rc_worker *next;
    uint32_t id, heir_of;
    unsigned generation;  /* those of one share the AF_UNIX listeners */
    struct timespec born; /* CLOCK_REALTIME */
    pid_t pid;
    struct rc_source process; /* pidfd */
    struct rc_source channel_source;
    struct rc_source door;
    struct rc_channel channel;
    int child_channel; /* the child's end, until the fork */
    bool live;         /* the caller wants it steered to */
    double weight;     /* its part of new connections, against the others' */
    uint32_t slot;     /* what source_ip knows it by */
    uint32_t party;    /* workers of one party share their lanes (sharing.c); 0: none */
    bool dead;         /* its leader has been reaped */
    bool leaving;      /* exit status is known, the channel is being emptied */
    bool gone;
    bool seen_waiting; /* its main thread, for connections (doing.c) */
    bool inscrutable;  /* what it does cannot be seen here */
    int doing_fd;      /* its /proc/PID/syscall, or -1 */
    int open_fd;       /* its /proc/PID/fd, or -1 */
    unsigned hung_lanes;
    unsigned heard; /* the turn in which its channel was last read */
    int status;
    struct rc_pending pending[RC_PENDING_MAX];
    unsigned pendings;
    struct rc_zero_count zeros[8]; /* port-0 binds that listened, by address */
    struct rc_drain drain;
    bool takes;        /* dispatch may give it connections */
    uint64_t given;    /* how many it did, or will at its next accept */
    unsigned promised; /* of these, how many are offers by a bell */
    unsigned open;     /* of these, how many are open (opens.c) */
};

/* ---- engine ------------------------------------------------------------------ */

struct rc_output {
    struct rc_event *events;
    size_t count, room;
};

struct rc_watch {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_watch *next;
};

struct rc_engine {
    int epoll;
    unsigned flags;
    struct rc_source timer, sweep, signals;
    int64_t sweep_at; /* the sweep timer, us; 0: not set */
    struct rc_vigil vigil;
    bool hasty, sweeping;
    int64_t crowd_at, crowd_until; /* the next look of crowd.c, us, 0: none; and the last */
    sigset_t signal_set, mask_before;
    bool masked;
    bool limited; /* RLIMIT_NOFILE was raised from: */
    struct rlimit limit_before;
    bool orphans; /* a child that is not a worker may wait to be reaped */
    int64_t deadline_ms;
    bool hurried; /* the timer was set to now because lines wait in a buffer */
    struct rc_guard guard;
    struct rc_worker *workers;
    struct rc_worker *nobody; /* has the lanes that no worker has yet (inherited.c); or NULL */
    struct rc_group *groups;
    struct rc_unix_group *unixes;
    struct rc_unix_errand *errands;
    struct rc_source unix_watch; /* inotify, or -1 */
    bool expects_paths;          /* workers will bind AF_UNIX paths */
    enum rc_policy policy;
    struct rc_kernel *kernel; /* NULL: no steering by eBPF */
    unsigned flows_stay_ms;   /* UDP flows of who retires; 0: not at all */
    struct rc_watch *watches;
    struct rc_shim shim;
    struct rc_shim_caller *callers;
    struct rc_grave *graves;
    struct rc_dispatch dispatch;
    int diag;            /* netlink socket, or -1 */
    uint32_t diag_asked; /* number of the last question */
    unsigned turn;
    struct rc_output *output; /* where events go while rc_wait runs */
    char texts[64][128];      /* addresses of this turn's listening events */
    unsigned text_count;
};

enum { RC_TURN = 32 }; /* descriptors that are dealt with in a turn, at most */

/* hearing.c */
void rc_hear(struct rc_engine *engine, struct rc_worker *worker);
bool rc_has_to_tell(const struct rc_worker *worker);
void rc_channel_ready(struct rc_engine *engine, struct rc_worker *worker, uint32_t ready);

void rc_descriptors_restore(const struct rc_engine *engine);
struct rc_worker *rc_find(struct rc_engine *engine, uint32_t id);
void rc_emit(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
             const char *text, size_t length);
void rc_emit_place(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                   const char *place);
void rc_emit_key(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                 const struct rc_key *key);
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker);
void rc_worker_departed(struct rc_engine *engine, struct rc_worker *worker);
int rc_guard_renew(struct rc_engine *engine);
void rc_reap_orphans(struct rc_engine *engine);
int rc_send_descriptor(int socket, const void *bytes, size_t length, int fd);
ssize_t rc_receive_descriptor(int socket, void *bytes, size_t length, int *fd);

#endif
