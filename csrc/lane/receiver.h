/* receiver.h - what a lane has of dispatch: how its worker is told of a connection. Only
 * what it is; what is done with it is dispatch's (dispatch/dispatch.h).
 */
#ifndef RECLUSTER_RECEIVER_H
#define RECLUSTER_RECEIVER_H

#include "base/loop.h"

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

#endif
