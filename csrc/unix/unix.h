/* unix.h - what others ask of AF_UNIX listeners; their own files share unixlane.h.
 */
#ifndef RECLUSTER_UNIX_H
#define RECLUSTER_UNIX_H

#include "recluster.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rc_answer;
struct rc_call;
struct rc_engine;
struct rc_shim_caller;
struct rc_worker;

/* Of an address of AF_NETLINK: a bind of that length is not trapped, and a path of nine bytes
 * has it too (notify.c). */
enum { RC_NETLINK_LENGTH = 12 };

/* unix.c */
void rc_unix_close(struct rc_engine *engine);
void rc_unix_exited(struct rc_engine *engine, const struct rc_worker *worker);
void rc_unix_drop(struct rc_engine *engine, const struct rc_worker *worker);
unsigned rc_unix_queued(struct rc_engine *engine, const struct rc_worker *worker);
uint64_t rc_unix_inode(const struct rc_engine *engine, const struct rc_worker *worker);
size_t rc_unix_lanes(const struct rc_engine *engine, struct rc_lane_facts *out, size_t room,
                     size_t count);
void rc_unix_free(struct rc_engine *engine);
void rc_unix_close_all(const struct rc_engine *engine);

/* unixdoor.c */
void rc_unix_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
bool rc_unix_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
void rc_unix_refused(const struct rc_answer *answer);
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer);

/* unixfacts.c */
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker);

/* unixstored.c */
int rc_unix_stored(const struct rc_engine *engine, struct rc_stored *out, size_t room, int count);
int rc_unix_stored_note(const struct rc_engine *engine, uint64_t inode, char *text, size_t room);

/* unixproof.c; whether a worker accepts from what it shares with all generations */
struct rc_shared_proof {
    int64_t look_at; /* us; 0: it is not to be found out */
    int64_t tell_at; /* us; what it has lost before it was ready; 0: nothing */
    int64_t since;   /* us; of these looks, */
    unsigned looks, busy;
    unsigned interval;
};
void rc_unix_proofs_alarm(struct rc_engine *engine);

/* unixturn.c */
void rc_unix_alarm(struct rc_engine *engine);
void rc_unix_retry(struct rc_engine *engine);
void rc_unix_came_back(struct rc_engine *engine, const struct rc_worker *worker, pid_t thread);
bool rc_unix_has_turn(const struct rc_engine *engine, const struct rc_shim_caller *caller);
void rc_later_forget(struct rc_engine *engine, const struct rc_shim_caller *caller);

#endif
