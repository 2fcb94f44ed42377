/* unix.h - what the files of AF_UNIX listeners share (unix.c, unixdoor.c,
 * unixplace.c, unixname.c). Nobody else includes it.
 */
#ifndef RECLUSTER_UNIX_H
#define RECLUSTER_UNIX_H

#include "internal.h"

#include <limits.h>
#include <sys/un.h>

/* An address: a name in a directory, or in the abstract namespace. */
struct rc_unix_name {
    dev_t device; /* of the directory; 0: abstract */
    ino_t directory;
    char base[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
    size_t length; /* of base */
};

/* What a name in a directory leads to. */
struct rc_unix_node {
    dev_t device;
    ino_t inode;
};

/* A bind that has not listened yet; as in pending.c, not a descriptor. */
struct rc_unix_bound {
    struct rc_unix_bound *next;
    struct rc_worker *worker;
    uint64_t inode;  /* of the socket */
    unsigned alias;  /* a name of it beside the address; 0: none */
    bool at_address; /* bound there, not beside it */
    struct rc_unix_node node;
};

#define RC_NO_GENERATION UINT32_MAX /* no worker has it yet (inherited.c) */

enum { RC_UNIX_OWN_MAX = 64 }; /* addresses that one worker may have to itself */

/* One listening socket, from which all workers of a generation accept. */
struct rc_unix_lane {
    struct rc_grave grave;
    struct rc_unix_lane *next;
    int fd;
    uint64_t inode;
    uint32_t generation; /* of the workers that accept from it */
    unsigned backlog;
    unsigned alias; /* a second name of it, by which it can be put back; 0: none */
    struct rc_unix_node node;
    int watch; /* inotify's number, or -1 */
    struct rc_worker **members;
    unsigned count, room;
};

struct rc_unix_group {
    struct rc_grave grave;
    struct rc_unix_group *next;
    struct rc_unix_name name;
    char text[128];    /* unix:PATH, as the first worker gave it */
    char given[108];   /* PATH */
    int directory;     /* O_PATH, or -1: abstract */
    int held;          /* abstract: the bound socket, for there can be no second; else -1 */
    bool shared;       /* a second worker has asked for it: it is not one's own business */
    bool late;         /* its binds may not be seen (notify.c): seen at listen, if at all */
    bool one_for_all;  /* all generations have one lane, and nothing is moved */
    bool closing;      /* new connections are refused */
    unsigned aliases;  /* number of the last one */
    unsigned refusing; /* alias of a socket nobody listens on */
    struct rc_unix_node refusing_node;
    struct rc_unix_lane *lanes; /* the newest first */
    struct rc_unix_lane *placed;
    struct rc_unix_bound *bound;
    unsigned errands; /* binds under way (unixerrand.c) */
};

/* unixname.c */
int rc_unix_find_directory(pid_t pid, const char *path, struct rc_unix_name *name);
int rc_unix_find_directory_at(pid_t pid, int at, const char *path, struct rc_unix_name *name);
bool rc_unix_is_other_file(pid_t pid, int at, const char *path);
void rc_unix_alias(const struct rc_unix_group *group, unsigned number, char out[NAME_MAX + 1]);
bool rc_unix_node_at(const struct rc_unix_group *group, unsigned alias, struct rc_unix_node *out);
int rc_unix_name_it(const struct rc_unix_group *group, unsigned from, unsigned to);
void rc_unix_unname(const struct rc_unix_group *group, unsigned alias);
void rc_unix_sweep(const struct rc_unix_group *group);

/* A bind that a child carries out; see unixerrand.c. */
struct rc_unix_errand {
    struct rc_grave grave;
    struct rc_unix_errand *next;
    struct rc_source source; /* pidfd of the child */
    struct rc_later later;   /* whom to answer */
    struct rc_worker *worker;
    pid_t child, caller;
    int *outcome; /* the child's, in memory shared with it: 0 or -errno */
    int fd;       /* our duplicate of the socket */
    uint64_t inode;
    struct rc_unix_group *group; /* NULL: not known before the child has looked */
    struct rc_unix_bound *bound;
    int folder; /* of an alias: see bind_alike; or -1 */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
};

/* unixchild.c */
pid_t rc_unix_child(const struct rc_unix_errand *errand);
bool rc_unix_same_powers(pid_t pid);

/* unixerrand.c */
int rc_unix_errand_start(struct rc_engine *engine, const struct rc_call *call,
                         struct rc_unix_group *group, const char *path, unsigned alias,
                         struct rc_later **later);
struct rc_later *rc_unix_errand_of(struct rc_engine *engine, uint64_t inode);
void rc_unix_errands_catch_up(struct rc_engine *engine);
void rc_unix_errands_cancel(struct rc_engine *engine, const struct rc_worker *worker);
void rc_unix_errands_close(const struct rc_engine *engine);
void rc_unix_errands_free(struct rc_engine *engine);

/* unixplace.c */
int rc_unix_share(struct rc_engine *engine, struct rc_unix_group *group);
int rc_unix_place(struct rc_engine *engine, struct rc_unix_group *group);
void rc_unix_watch(struct rc_engine *engine, struct rc_unix_group *group,
                   struct rc_unix_lane *lane);

bool rc_unix_is_private(const struct rc_worker *worker, int directory);

/* unixdoor.c */
void rc_unix_give(struct rc_engine *engine, const struct rc_call *call, struct rc_unix_group *group,
                  struct rc_answer *answer);

/* unixgroup.c */
void rc_unix_unwatch(struct rc_engine *engine, struct rc_unix_lane *lane);
bool rc_unix_errand_blind(const struct rc_engine *engine, const struct rc_worker *worker,
                          const char *path);
bool rc_unix_errand_elsewhere(const struct rc_engine *engine, const struct rc_unix_group *group,
                              const struct rc_worker *worker);
struct rc_unix_group *rc_unix_group_find(struct rc_engine *engine, const struct rc_unix_name *name);
struct rc_unix_group *rc_unix_group_new(struct rc_engine *engine, const struct rc_unix_name *name,
                                        const char *given, int directory);
void rc_unix_group_tidy(struct rc_engine *engine, struct rc_unix_group *group);
struct rc_unix_lane *rc_unix_lane_find(struct rc_engine *engine, uint64_t inode,
                                       struct rc_unix_group **of);
bool rc_unix_is_member(const struct rc_unix_lane *lane, const struct rc_worker *worker);
int rc_unix_join(struct rc_unix_lane *lane, struct rc_worker *worker);
void rc_unix_part(struct rc_unix_lane *lane, const struct rc_worker *worker);
bool rc_unix_has_living(const struct rc_unix_lane *lane);
struct rc_unix_bound *rc_unix_bound_find(struct rc_engine *engine, const struct rc_worker *worker,
                                         uint64_t inode, struct rc_unix_group **of);
void rc_unix_bound_add(struct rc_unix_group *group, struct rc_worker *worker,
                       struct rc_unix_bound *bound);
void rc_unix_bound_free(struct rc_unix_group *group, struct rc_unix_bound *bound);
unsigned rc_unix_count_own(const struct rc_engine *engine, const struct rc_worker *worker);
bool rc_unix_asked_by_others(const struct rc_engine *engine, const struct rc_unix_group *group,
                             const struct rc_worker *worker);
void rc_unix_forget(struct rc_engine *engine, struct rc_unix_group *group);
void rc_unix_lane_free(struct rc_engine *engine, struct rc_unix_group *group,
                       struct rc_unix_lane *lane);

static inline bool rc_unix_same_node(const struct rc_unix_node *a, const struct rc_unix_node *b)
{
    return a->device == b->device && a->inode == b->inode;
}

#endif
