/* doors.h - calls of a worker that come to the master, by either door, and what
 * becomes of them: bind and listen make lanes.
 *
 * Direction: notify, shimdoor -> bind, listen -> pending, inherited; answers at the bottom.
 */
#ifndef RECLUSTER_DOORS_H
#define RECLUSTER_DOORS_H

#include "base/loop.h"
#include "base/sockets.h"
#include "recluster.h"

#include <sys/un.h>

struct rc_engine;
struct rc_group;
struct rc_lane;
struct rc_worker;

/* One trapped bind or listen, however it came. */
struct rc_shim_caller;
struct rc_call {
    struct rc_worker *worker;
    pid_t pid, thread;
    struct rc_shim_caller *caller; /* by the shim, or NULL */
    int number;                    /* the descriptor's number in that process */
    int fd;                        /* our dup of it */
    struct sockaddr_in6 address;
    socklen_t length;
    int backlog;
    struct sockaddr_un path; /* instead of address, for AF_UNIX */
    socklen_t path_length;
};

/* A process that asks by the shim, until it has its answer. */
struct rc_shim_caller {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_shim_caller *next;
    pid_t pid;
    uint32_t worker; /* whose process it is; 0: it has left its worker's tree */
    void (*release)(struct rc_engine *engine, struct rc_shim_caller *caller); /* rc_caller_free */
    int64_t silent_until; /* us; 0: it has asked */
    struct rc_ring *ring; /* what it was given by a bell, until it has acknowledged that */
    int binds;            /* the socket that it is told to bind itself, until it has; or -1 */
};

/* A call that is answered in a later turn, and how. */
struct rc_later {
    /* How; NULL: nobody waits any more. Only once. */
    void (*answer)(struct rc_engine *engine, const struct rc_worker *worker,
                   const struct rc_later *later, bool pass, int result);
    uint64_t notice;               /* of the worker's door, or */
    struct rc_shim_caller *caller; /* the shim that asked */
};

struct rc_unix_lane;
struct rc_answer {
    struct rc_later *later; /* not now: the door writes there how to answer */
    bool pass;              /* let the kernel do it, with the rights of the process */
    bool share;             /* of a bind that passes: siblings may bind the address too */
    int result;             /* 0 or -errno; of a call that passes 0 */
    int replace;            /* a descriptor to put in place of theirs (before), or -1 */
    bool owned;             /* replace is the answer's own, to close after use */
    struct rc_lane *adopted;
    struct rc_worker *previous;  /* who had it; of a shared lane: who joins */
    struct rc_unix_lane *joined; /* AF_UNIX: by joiner, who was not in it before */
    struct rc_worker *joiner;
};

/* pending.c */
/* A bind that may become a lane. Held by numbers, not by a descriptor: a bind
 * that never listens must leave no trace. */
struct rc_pending {
    pid_t pid;
    int fd;
    uint64_t inode;
    bool reuse_address, reuse_port; /* what the program had set */
    struct rc_key key;              /* as it was asked for, which may be another by now */
    bool zero;                      /* port 0 was asked for */
    bool given;                     /* an address that the cluster was given: bound by us */
    in_port_t port;                 /* a sibling's, where this one has listened; else 0 */
};
enum { RC_PENDING_MAX = 64, RC_ZEROS_MAX = 64 };

struct rc_zero_count {
    struct rc_key asked;
    uint64_t listened; /* bit n: the n-th has */
};

void rc_pending_add(struct rc_worker *worker, const struct rc_pending *pending);
void rc_pending_delete(struct rc_worker *worker, unsigned at);
struct rc_pending *rc_pending_find(struct rc_worker *worker, uint64_t inode);
bool rc_pending_share(struct rc_engine *engine, const struct rc_worker *self,
                      const struct rc_key *key);
int rc_zero_index(struct rc_engine *engine, struct rc_worker *worker,
                  const struct rc_pending *found, const struct rc_key *asked);
struct rc_group *rc_zero_group(struct rc_engine *engine, const struct rc_key *asked, int index);
void rc_zero_listened(struct rc_worker *worker, const struct rc_key *asked, int index);

/* bind.c, listen.c */
void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
bool rc_place_taken(struct rc_engine *engine, const struct rc_key *key);
void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *call,
                     struct rc_answer *answer);
void rc_lanes_refused(struct rc_answer *answer);
struct rc_lane *rc_orphan_for(struct rc_engine *engine, const struct rc_worker *heir,
                              const struct rc_key *key);
int rc_adopt(struct rc_engine *engine, const struct rc_call *call, struct rc_lane *lane,
             bool passes, struct rc_answer *answer);

/* inherited.c */
bool rc_inherited_bind(struct rc_engine *engine, const struct rc_call *call,
                       const struct sockaddr_in6 *address, struct rc_answer *answer);
void rc_inherited_fit(struct rc_engine *engine, int fd, struct rc_key *key);

/* look.c */
struct rc_look { /* into a worker's memory, for a call of it that waits */
    struct rc_grave grave;
    struct rc_source source;
    struct rc_look *next;
    uint32_t worker;
    uint64_t notice;
    struct rc_call call; /* call.worker may be gone by now */
    int at;              /* of an unlink: from where; */
    bool is_bind;        /* else it is one */
    uint32_t length;     /* of a bind's address, as it was said to be */
    struct rc_reader *reader;
};
int rc_look_begin(struct rc_engine *engine, struct rc_look *look, uint64_t from, size_t length,
                  bool text);
ssize_t rc_look_result(const struct rc_look *look, const char **bytes);
void rc_look_close(const struct rc_look *look);
void rc_look_end(struct rc_engine *engine, struct rc_look *look);
void rc_looks_pass(struct rc_engine *engine);

/* rights.c */
bool rc_may_bind(const struct rc_engine *engine, const struct rc_call *call,
                 const struct rc_key *key);
bool rc_is_allowed(const struct rc_engine *engine, const struct rc_key *key);

/* answers.c */
struct rc_asked;
void rc_notify_reply(struct rc_asked *asked, int door, uint64_t id, bool pass, int result);

/* asked.c */
struct seccomp_notif;
int rc_asked_new(struct rc_asked **out);
void rc_asked_free(struct rc_asked *asked);
bool rc_asked_share(struct rc_asked *asked, bool on);
struct seccomp_notif *rc_asked_place(struct rc_asked *asked);
void rc_asked_done(struct rc_asked *asked, uint64_t id);
void rc_asked_pass(const struct rc_asked *asked, int door);
int rc_shim_reply(int socket, const struct rc_answer *answer, int replace);
struct rc_later rc_later_notice(uint64_t notice);
struct rc_later rc_later_shim(struct rc_shim_caller *caller);

/* callers.c */
void rc_callers_alarm(struct rc_engine *engine);
void rc_shim_accept(struct rc_engine *engine);
void rc_caller_free(struct rc_engine *engine, struct rc_shim_caller *caller);
void rc_caller_binds(struct rc_engine *engine, struct rc_shim_caller *caller, int fd);
void rc_caller_stays(struct rc_engine *engine, struct rc_shim_caller *caller);

/* What of a worker is trapped beside bind and listen. */
enum rc_traps { RC_TRAP_BINDS = 0, RC_TRAP_UNLINKS = 1 };
int rc_notify_install(unsigned traps);
int rc_notify_receive(struct rc_engine *engine, struct rc_worker *worker);
void rc_notify_looked(struct rc_engine *engine, struct rc_source *source);

struct rc_shim {
    struct rc_source port;
    char name[64];
    uint64_t token;
    int64_t paused_until;      /* us; 0: not */
    unsigned calls, strangers; /* open ones; and since: */
    int64_t strangers_at;
};
void rc_shim_call(struct rc_engine *engine, struct rc_source *source);
int rc_shim_resume(struct rc_engine *engine, int fd, uint64_t token);

/* audit.c */
void rc_worker_passed(struct rc_worker *worker, uint64_t inode);

/* storedudp.c */
void rc_stored_udp_places(const struct rc_group *group, int *place_of, uint32_t *numbers);

/* unclaimed.c */
void rc_unclaimed_called(struct rc_engine *engine, struct rc_source *source);
void rc_unclaimed_close(const struct rc_engine *engine);
void rc_unclaimed_free(struct rc_engine *engine);
void rc_unclaimed_in_the_way(struct rc_engine *engine, uint32_t worker, const struct rc_key *key);

#endif
