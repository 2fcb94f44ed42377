/* receiver.h - how the worker of a lane is passed a connection. When that is done is
 * dispatch's to say (dispatch/dispatch.h), and proof.c's.
 */
#ifndef RECLUSTER_RECEIVER_H
#define RECLUSTER_RECEIVER_H

#include "base/loop.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct rc_receiver {
    struct rc_source pair; /* our end; -1: its worker accepts from the lane itself */
    int theirs;            /* our duplicate of the worker's end: what it does not take stays */
    uint64_t inode;        /* of the worker's end; kept when the pair is not used any more */
    bool offered;          /* it has not taken its last connection yet */
    bool late;             /* for so long that others go first */
    int64_t since_ms;
    int64_t looked_ms; /* late: whether it has given its lane up */
    uint64_t ran_ns;   /* how long it had run when it was last looked at */
};

/* A connection that the master holds for a moment: it was given to a worker that
 * did not take it. It goes to another one before any that waits in the kernel. */
struct rc_accepted {
    struct rc_accepted *next;
    int fd;
    socklen_t length;
    struct sockaddr_in6 peer;
    uint32_t number; /* of the lane that programs in the kernel count it for; 0: none */
};

/* pass.c */
int rc_pass_pair(const struct sockaddr_in6 *address, int *ours, int *theirs);
int rc_pass_send(int ours, const struct rc_accepted *accepted);
bool rc_pass_taken(int ours);
int rc_pass_receive(int theirs, struct rc_accepted *out);

#endif
