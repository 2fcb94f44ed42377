/* wire.h - what the preload shim and the master say to each other.
 *
 * One SOCK_SEQPACKET connection per call, to an abstract address named in
 * RECLUSTER_SHIM as name/worker/token: descriptors are not inherited reliably
 * (multiprocessing and subprocess close them), environment is.
 */
#ifndef RECLUSTER_WIRE_H
#define RECLUSTER_WIRE_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/un.h>

#define RC_SHIM_RECEIVES "receives" /* instead: the seccomp door is there, see shim.c */

enum rc_wire_operation { RC_WIRE_BIND = 1, RC_WIRE_LISTEN = 2, RC_WIRE_UNLINK = 3 };
#define RC_WIRE_MAGIC 0x72637333u

struct rc_wire_request { /* with the socket attached by SCM_RIGHTS; an unlink has none */
    uint32_t magic;
    uint32_t operation;
    uint64_t token;
    uint32_t worker;
    int32_t number;
    int32_t backlog;
    uint32_t length;
    union {
        struct sockaddr_in6 address;
        struct sockaddr_un path; /* of an unlink: what to remove, `number` from where */
    };
};

struct rc_wire_reply { /* with a socket attached if it is to be put in place */
    uint32_t magic;
    int32_t pass;
    int32_t error; /* 0 or an errno */
};

/* What the master passes to a worker in dispatch (csrc/pass.c). The master's end of the
 * pair has an abstract name: this, anything, a slash, the address in hexadecimal. */
#define RC_PASS_NAME "recluster-pass/"
#define RC_PASS_MAGIC 0x72637061u
enum { RC_PASS_MARK = 0x5263, RC_PASS_BACKLOG = 0xffff }; /* halves of a backlog: we can */

struct rc_pass_head { /* with the connection attached by SCM_RIGHTS, or with none */
    uint32_t magic;
    uint32_t length;
    struct sockaddr_in6 peer; /* accept(2) knows it also when the client is gone */
};

#endif
