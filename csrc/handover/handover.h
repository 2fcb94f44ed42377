/* handover.h - connections that a worker had accepted, and another goes on with.
 *
 * Direction: spawn, lanes -> move, handover -> exchange; handout (ring.h), facts, descriptor.
 */
#ifndef RECLUSTER_HANDOVER_H
#define RECLUSTER_HANDOVER_H

#include "base/loop.h"
#include "base/sockets.h"

#include <sys/types.h>

struct rc_engine;
struct rc_flows;
struct rc_group;
struct rc_lane;
struct rc_shim_caller;
struct rc_worker;

/* exchange.c; bytes since the connection began */
struct rc_exchange {
    bool open; /* established, and neither side has closed */
    uint64_t read, written;
    unsigned unread;
    unsigned quiet_ms;   /* since a byte last moved */
    int64_t answered_ms; /* by so much the last answer is younger than the last request */
};
int rc_exchange_look(int fd, struct rc_exchange *out);
int rc_exchange_peek(int fd);

enum rc_kept_state {
    RC_KEPT_HELD,  /* the worker has it too */
    RC_KEPT_IDLE,  /* the client's next request goes to another worker */
    RC_KEPT_GIVES, /* it is there, and the worker may still have an eye on the socket */
    RC_KEPT_ENDS,  /* it was answered as one that is closed: so it will be, or by the client */
};

struct rc_kept {
    struct rc_grave grave;
    struct rc_kept *next;
    struct rc_source client; /* our duplicate of the server's end */
    struct rc_group *group;
    struct rc_worker *worker; /* NULL: it has ended */
    pid_t pid;                /* who had it, */
    int number;               /* as this descriptor */
    uint64_t inode;
    uint32_t mark; /* as rc_accepted.number */
    bool blocks;   /* in read(2): a thread may stand there after the number was closed */
    enum rc_kept_state state;
    struct rc_exchange then, last; /* when it was first looked at, and last */
    struct rc_exchange before;     /* when `reads` was asked */
    bool settled;                  /* what was read then was answered */
    bool reads;                    /* a thread stands in read(2) there (move.c) */
    bool moved;                    /* its worker was ended, and nothing of an answer is to come */
    bool still;                    /* frozen (freeze.c), */
    int64_t turned_at;             /* since when, or not any more */
    int64_t until;                 /* us: closed then; 0: not yet */
};

struct rc_handover {
    struct rc_kept *all;
    int64_t began_at; /* the last one, us */
    int64_t idle_us;  /* how long a client that was moved may ask for nothing; others have less */
    bool hastes;
};

/* A worker that is about to be told to stop. */
struct rc_leave {
    int signal;       /* still to be sent; 0: it was, */
    int64_t began_at; /* us; 0: it is not */
    int64_t sent_at;
    bool answered;     /* all that was read, by then */
    unsigned barriers; /* bells that it has not asked for */
};

/* One that gets it at a moment at which nothing is lost, or not yet (move.c). */
struct rc_move {
    int64_t began_at; /* us; 0: none */
    int signal;
    unsigned quiet_ms; /* what is quiet for so long is over */
    pid_t server;
    int server_fd; /* its pidfd */
    int64_t stopped_at, again_at;
};

/* What was sent of a worker's whose descriptors we may not take. */
struct rc_given {
    int fd;
    uint64_t inode;
};

struct rc_question {
    int64_t asked_at; /* us; 0: nobody waits */
    unsigned bells;   /* that have not ended */
    bool moves;       /* what waits is a move, or else the stop signal: */
    int signal;
    struct rc_given *all;
    size_t count, room;
};

/* question.c */
int rc_question_ask(struct rc_engine *engine, struct rc_worker *worker);
bool rc_question_heard(struct rc_worker *worker, const struct rc_shim_caller *caller);
void rc_question_answered(struct rc_engine *engine, struct rc_worker *worker);
int rc_question_take(struct rc_worker *worker, uint64_t inode);
bool rc_question_look(struct rc_engine *engine, struct rc_worker *worker, int64_t now);
void rc_question_close(const struct rc_worker *worker);
void rc_question_end(struct rc_worker *worker);

/* move.c */
int rc_move_begin(struct rc_engine *engine, struct rc_worker *worker);
bool rc_move_look(struct rc_engine *engine, int64_t now);
void rc_move_end(struct rc_worker *worker);

/* freeze.c */
void rc_leave_now(struct rc_engine *engine, struct rc_worker *worker, int64_t now);
bool rc_freeze_ready(struct rc_kept *kept, int64_t now);
bool rc_freeze_begin(struct rc_engine *engine, struct rc_worker *worker, int signal);
void rc_freeze_look(struct rc_engine *engine, int64_t now);
void rc_freeze_end(struct rc_kept *kept);

/* handover.c */
void rc_handover_begin(struct rc_engine *engine, struct rc_worker *worker, int signal);
int rc_handover_hold(struct rc_engine *engine, struct rc_worker *worker);
void rc_handover_let_go(struct rc_engine *engine, const struct rc_worker *worker);
void rc_handover_glance(struct rc_kept *kept);
void rc_handover_ended(struct rc_engine *engine, struct rc_worker *worker);
extern const struct rc_part rc_handover_part;
void rc_handover_leave(struct rc_engine *engine, struct rc_group *group);
void rc_handover_heard(struct rc_engine *engine, struct rc_kept *kept);
void rc_handover_alarm(struct rc_engine *engine);
void rc_handover_close(const struct rc_engine *engine);
void rc_handover_free(struct rc_engine *engine);

#endif
