/* wire.h - what the preload shim and the master say to each other.
 *
 * One SOCK_SEQPACKET connection per call, to an abstract address named in
 * RECLUSTER_SHIM as name/worker/token: descriptors are not inherited reliably
 * (multiprocessing and subprocess close them), environment is. RECLUSTER_RING is the same
 * for who is asked about bells only.
 */
#ifndef RECLUSTER_WIRE_H
#define RECLUSTER_WIRE_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#define RC_SHIM_RECEIVES "receives" /* instead: the seccomp door is there, see shim.c */

enum rc_wire_operation {
    RC_WIRE_BIND = 1,
    RC_WIRE_LISTEN = 2,
    RC_WIRE_UNLINK = 3,
    RC_WIRE_CONNECTED = 4, /* a UDP socket that siblings may share: it is one peer's now */
    RC_WIRE_PAGE = 5,      /* the page of bells, below */
    RC_WIRE_BELL = 6,      /* from `address` somebody has rung here: what does it bring? */
    RC_WIRE_KEPT = 7,      /* over the same connection: what it brought has arrived; */
    RC_WIRE_HAVE = 8,      /* or, of a question, a connection that is here, and the next is asked */
};
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
    int32_t pass;   /* do it plainly, or as below */
    int32_t error;  /* 0 or an errno */
    int32_t brings; /* of a bell, enum rc_wire_brings; */
    uint32_t length;
    struct sockaddr_in6 peer; /* and whose connection it is */
};

enum { RC_WIRE_PLAIN = 1, RC_WIRE_SHARE = 2 /* and then let siblings bind the address too */ };

/* A connection that is given to a worker comes by a bell: a connection of the master's own to
 * its lane, which its accept returns (csrc/handover/ring.c). The library asks by the bell's name.
 */
enum rc_wire_brings {
    RC_BRINGS_ITSELF,   /* it is no bell: a client from the same port of another address */
    RC_BRINGS_NOTHING,  /* it was withdrawn, or what it was for has been taken elsewhere */
    RC_BRINGS_ANOTHER,  /* the attached connection, which is to be acknowledged */
    RC_BRINGS_QUESTION, /* what has been accepted here? An RC_WIRE_HAVE for each, then RC_WIRE_KEPT
                         */
};

/* Shared by the master with all workers, which may only read it: the ports of its bells. So
 * while there is none an accept costs one look at `rung`. */
enum { RC_PAGE_PORTS = 1022 };
struct rc_ring_page {
    uint32_t rung;                 /* bells there are; is raised after the port was written */
    uint16_t ports[RC_PAGE_PORTS]; /* host order; 0: free */
};

/* Beside its three arguments our bind(2) has the address in those that the kernel does not look
 * at. A seccomp notification brings all six, so the master need not read the worker's memory. */
struct rc_told {
    sa_family_t family;
    in_port_t port;
    uint32_t check;
    uint32_t host[4]; /* one of IPv4, four of IPv6 */
};
_Static_assert(sizeof(struct rc_told) == 3 * sizeof(uint64_t), "three registers");

/* So that what lies there by chance, of a call that is not ours, is not taken for an address.
 * `first`: the three arguments. */
static inline uint32_t rc_told_check(const struct rc_told *told, const uint64_t first[3])
{
    uint64_t words[6], sum = RC_WIRE_MAGIC;
    struct rc_told one = *told;
    one.check = 0;
    memcpy(words, first, sizeof words / 2);
    memcpy(words + 3, &one, sizeof one);
    for (unsigned at = 0; at < 6; at++)
        sum = (sum ^ words[at]) * 0x9e3779b97f4a7c15u ^ sum >> 29;
    return (uint32_t)(sum >> 32);
}

/* What the master passes to a worker in dispatch (csrc/lane/pass.c). The master's end of the
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
