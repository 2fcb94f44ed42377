/* doors.h - calls of a worker that come to the master, by either door, and what
 * becomes of them: bind and listen make lanes.
 *
 * Direction: notify, shimdoor -> bind, listen -> pending, inherited, udp, unixdoor
 * -> lanes.h; answers at the bottom.
 */
#ifndef RECLUSTER_DOORS_H
#define RECLUSTER_DOORS_H

#include "loop.h"
#include "recluster.h"
#include "sockets.h"

#include <sys/un.h>

struct rc_engine;
struct rc_lane;
struct rc_worker;

/* One trapped bind or listen, however it came. */
struct rc_call {
    struct rc_worker *worker;
    pid_t pid;
    int number; /* the descriptor's number in that process */
    int fd;     /* our dup of it */
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
    uid_t uid;
};

/* A call that is answered in a later turn, and how. */
struct rc_later {
    uint64_t notice;               /* of the worker's door, or */
    struct rc_shim_caller *caller; /* the shim that asked; neither: nobody waits any more */
};

struct rc_unix_lane;
struct rc_answer {
    struct rc_later *later; /* not now: the door writes there how to answer */
    bool pass;              /* let the kernel do it as if nobody had looked */
    int result;             /* 0 or -errno */
    int replace;            /* a descriptor to put in place of theirs, or -1 */
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
    bool reuse_address; /* what the program had set, restored at listen */
    struct rc_key key;
    struct sockaddr_in6 zero; /* what a port-0 bind asked for */
    int zero_index;           /* n-th such bind of the worker, -1: a given port */
};
enum { RC_PENDING_MAX = 64 };

struct rc_zero_count {
    struct sockaddr_in6 asked;
    int listened;
};

void rc_pending_add(struct rc_worker *worker, const struct rc_pending *pending);
void rc_pending_delete(struct rc_worker *worker, unsigned at);
struct rc_pending *rc_pending_find(struct rc_worker *worker, uint64_t inode);
bool rc_pending_elsewhere(struct rc_engine *engine, const struct rc_key *key);
int rc_zero_index(struct rc_worker *worker, const struct sockaddr_in6 *asked);
in_port_t rc_zero_port(struct rc_engine *engine, const struct rc_worker *worker,
                       const struct sockaddr_in6 *asked, int index);
void rc_zero_listened(struct rc_worker *worker, const struct rc_pending *pending);

/* bind.c, listen.c */
void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
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

/* descriptor.c */
pid_t rc_process_of(pid_t thread);
int rc_take_descriptor(const struct rc_worker *worker, pid_t process, int number);
int rc_take_of_thread(const struct rc_worker *worker, pid_t thread, int number);
bool rc_is_same_file(pid_t thread, int number, int ours);

/* udp.c, udpsocket.c */
void rc_udp_bind(struct rc_engine *engine, const struct rc_call *call,
                 const struct sockaddr_in6 *address, struct rc_answer *answer);
bool rc_udp_connected(int fd);
void rc_udp_leave_groups(int fd);
void rc_udp_empty(int fd);

/* unix.c, unixdoor.c, unixplace.c, unixerrand.c: AF_UNIX listeners */
struct rc_unix_errand;
void rc_unix_errand_ended(struct rc_engine *engine, struct rc_source *source);
enum { RC_NETLINK_LENGTH = 12 };
void rc_unix_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
bool rc_unix_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
void rc_unix_refused(const struct rc_answer *answer);
int rc_unix_resteer(struct rc_engine *engine);
void rc_unix_close(struct rc_engine *engine);
void rc_unix_noticed(struct rc_engine *engine);
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer);
void rc_unix_exited(struct rc_engine *engine, const struct rc_worker *worker);
void rc_unix_drop(struct rc_engine *engine, const struct rc_worker *worker);
unsigned rc_unix_queued(struct rc_engine *engine, const struct rc_worker *worker);
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker);
size_t rc_unix_lanes(const struct rc_engine *engine, struct rc_lane_facts *out, size_t room,
                     size_t count);
void rc_unix_free(struct rc_engine *engine);
void rc_unix_close_all(const struct rc_engine *engine);

/* answers.c */
void rc_notify_reply(int door, uint64_t id, bool pass, int result);
int rc_shim_reply(int socket, const struct rc_answer *answer, int replace);
void rc_caller_free(struct rc_engine *engine, struct rc_shim_caller *caller);
void rc_later_answer(struct rc_engine *engine, const struct rc_worker *worker,
                     struct rc_later *later, int result);

/* What of a worker is trapped beside bind and listen. */
enum rc_traps { RC_TRAP_BINDS = 0, RC_TRAP_ACCEPTS = 1, RC_TRAP_UNLINKS = 2 };
int rc_notify_install(unsigned traps);
int rc_notify_receive(struct rc_engine *engine, struct rc_worker *worker);

struct rc_shim {
    struct rc_source port;
    char name[64];
    uint64_t token;
    bool starved; /* no descriptor was left for a caller */
};
void rc_shim_accept(struct rc_engine *engine);
void rc_shim_call(struct rc_engine *engine, struct rc_source *source);
void rc_shim_shut(struct rc_engine *engine);
void rc_later_forget(struct rc_engine *engine, const struct rc_shim_caller *caller);

#endif
