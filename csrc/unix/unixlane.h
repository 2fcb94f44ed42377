/* unixlane.h - what the files of AF_UNIX listeners share; also inherited.c, stored.c and
 * unclaimed.c, which look into their lanes.
 *
 * Direction: unixdoor -> unixturn -> unixlane -> unixname; unixdoor -> unixproof, unixstored;
 * unix, unixproof -> unixfacts -> unixlane.
 */
#ifndef RECLUSTER_UNIXLANE_H
#define RECLUSTER_UNIXLANE_H

#include "internal.h"

#include <limits.h>
#include <sys/un.h>

enum {
    RC_UNIX_OWN_MAX = 64, /* addresses that one worker may have to itself */
    RC_UNIX_PATH_MAX = sizeof(((struct sockaddr_un *)0)->sun_path),
    RC_UNIX_WHO_MAX = 8192,
};

/* A name as the process that says it means it: a path from its root, or "@", the
 * network namespace and an abstract name, or "=" and an internet address (inherited.c). */
struct rc_unix_name {
    size_t length;
    char bytes[PATH_MAX + RC_UNIX_PATH_MAX + 2];
};

/* Who says it: what it may do and what it sees, for the kernel's lines of /proc. */
struct rc_unix_who {
    char text[RC_UNIX_WHO_MAX];
    bool like_us; /* the master may do just the same, and sees the same files */
};

struct rc_unix_node {
    dev_t device;
    ino_t inode; /* 0: not known */
};

/* What goes with a stored listener (unixstored.c). */
struct rc_unix_note {
    uint64_t rights;
    struct rc_unix_node node;
};

enum rc_unix_leads { RC_LEADS_UNKNOWN, RC_LEADS_THERE, RC_LEADS_NOWHERE, RC_LEADS_ELSEWHERE };

/* A bind that was answered without one: at its listen the lane takes the socket's
 * place. As in pending.c, not a descriptor. */
struct rc_unix_ask {
    struct rc_unix_ask *next;
    struct rc_worker *worker;
    uint64_t inode; /* of the socket */
};

/* One listening socket, from which all accept who have asked for its name. */
struct rc_unix_lane {
    struct rc_grave grave;
    struct rc_unix_lane *next; /* the newest first */
    char *name;
    size_t length;
    char *who;       /* of who has bound it; NULL: it was there before, and is for all; "": it is
                        stored, and not claimed yet (unixstored.c) */
    uint64_t rights; /* stored: of who had bound it */
    char text[128];  /* unix:PATH, as the first worker gave it */
    char given[RC_UNIX_PATH_MAX + 1];
    size_t given_length;
    int fd;                   /* our duplicate */
    uint64_t inode;           /* of the socket */
    struct rc_unix_node node; /* of its path */
    bool bound;               /* else the bind is under way (unixturn.c) */
    bool lost;                /* its name leads elsewhere, or nowhere */
    bool removed;             /* at the end, by the first worker that wanted to */
    bool ours;                /* the master has bound it (--bind) */
    bool shared;              /* a second worker has asked for it */
    unsigned backlog;         /* 0: nobody listens yet */
    int directory;            /* of a path that the master has bound itself (--bind), or -1 */
    struct rc_unix_ask *asks;
    struct rc_worker **members; /* who listen */
    unsigned count, room;
};

/* unixwalk.c */
int rc_walk_there(const char *path);
int rc_walk_folder(const char *path);

/* unixname.c */
size_t rc_unix_name_length(const struct sockaddr_un *address, socklen_t length);
size_t rc_unix_name_at(int fd, struct sockaddr_un *out);
bool rc_unix_name_of(const struct rc_call *call, int at, const char *given, size_t length,
                     struct rc_unix_name *out);
bool rc_unix_is_path(const char *name);
bool rc_unix_who(const struct rc_call *call, struct rc_unix_who *out);
bool rc_unix_like_us(const char *who);
uint64_t rc_unix_rights(const char *who);
bool rc_unix_sees_as_we(const struct rc_call *call);
bool rc_unix_is_private(const struct rc_worker *worker, const char *path);
enum rc_unix_leads rc_unix_leads(const char *path, bool like_us, int socket,
                                 struct rc_unix_node *node);

/* unixlane.c */
struct rc_unix_lane *rc_unix_lane_new(struct rc_engine *engine, const struct rc_unix_name *name,
                                      const char *who, const char *given, size_t length, int fd);
void rc_unix_lane_free(struct rc_engine *engine, struct rc_unix_lane *lane);
void rc_unix_lane_tidy(struct rc_engine *engine, struct rc_unix_lane *lane);
void rc_unix_lose_older(struct rc_engine *engine, struct rc_unix_lane *lane,
                        const struct rc_worker *by);
struct rc_unix_lane *rc_unix_lane_of(struct rc_engine *engine, const struct rc_worker *worker,
                                     uint64_t inode);
struct rc_unix_lane *rc_unix_find(struct rc_engine *engine, const struct rc_call *call,
                                  const struct rc_unix_name *name, const struct rc_unix_who *who);
bool rc_unix_is_said(const struct rc_unix_lane *lane, const struct rc_unix_name *name);
bool rc_unix_is_base(const struct rc_engine *engine, const struct rc_unix_name *name);
bool rc_unix_is_member(const struct rc_unix_lane *lane, const struct rc_worker *worker);
int rc_unix_join(struct rc_unix_lane *lane, struct rc_worker *worker);
void rc_unix_part(struct rc_unix_lane *lane, const struct rc_worker *worker);
int rc_unix_ask(struct rc_unix_lane *lane, struct rc_worker *worker, uint64_t inode);
void rc_unix_unask(struct rc_unix_lane *lane, const struct rc_worker *worker);
bool rc_unix_has_others(const struct rc_unix_lane *lane, const struct rc_worker *worker);
unsigned rc_unix_count_own(const struct rc_engine *engine, const struct rc_worker *worker);

/* unixstored.c */
bool rc_unix_stored_read(const char *note, struct rc_unix_note *out);
int rc_unix_restore(struct rc_engine *engine, int fd, const struct rc_unix_note *note);
void rc_unix_claim_stored(struct rc_engine *engine, const struct rc_call *call,
                          const struct rc_unix_name *name);

/* unixproof.c */
void rc_unix_tell_lost(struct rc_engine *engine, const struct rc_worker *worker);
bool rc_unix_prove(struct rc_engine *engine, const struct rc_unix_lane *lane,
                   struct rc_worker *worker);

/* unixturn.c */
enum rc_unix_turn_kind { RC_TURN_UNLINK, RC_TURN_BIND, RC_TURN_LISTEN };

/* A call that the kernel was left to answer, and of which it is not known yet whether it
 * has: of one thread, or of one caller of the shim. */
struct rc_unix_turn {
    struct rc_unix_turn *next;
    enum rc_unix_turn_kind kind;
    struct rc_worker *worker;
    pid_t thread;
    struct rc_shim_caller *caller;
    struct rc_unix_lane *lane; /* whose it is, or NULL */
    int64_t until_us;
    size_t length;
    char name[];
};

bool rc_unix_turn(struct rc_engine *engine, const struct rc_call *call, enum rc_unix_turn_kind kind,
                  const struct rc_unix_name *name, struct rc_unix_lane *lane);
bool rc_unix_must_wait(const struct rc_engine *engine, const struct rc_worker *worker,
                       const struct rc_unix_name *name);
int rc_unix_wait(struct rc_engine *engine, const struct rc_call *call, bool unlinks,
                 const struct rc_unix_name *name, struct rc_later **later);
bool rc_unix_bound(struct rc_engine *engine, struct rc_unix_lane *lane);
void rc_unix_look(struct rc_engine *engine);
void rc_unix_turns_exited(struct rc_engine *engine, const struct rc_worker *worker);
void rc_unix_turns_close(const struct rc_engine *engine);
void rc_unix_turns_free(struct rc_engine *engine);

/* unixdoor.c */
void rc_unix_decide(struct rc_engine *engine, const struct rc_call *call, bool unlinks,
                    const struct rc_unix_name *name, struct rc_answer *answer);
void rc_unix_listened(struct rc_engine *engine, struct rc_unix_lane *lane,
                      struct rc_worker *worker);
void rc_unix_give(struct rc_engine *engine, const struct rc_call *call, struct rc_unix_lane *lane,
                  struct rc_answer *answer);

#endif
