/* question.c - the connections of a worker whose descriptors we may not take.
 *
 * pidfd_getfd(2) is denied in a usual container. There a bell at the worker (ring.c) asks what it
 * has accepted, and the preload library, in the thread that has taken the bell, sends it: each
 * socket with its number. Owns what was sent until it is held (handover.c).
 *
 * Invariants:
 *  - what is sent is believed only where /proc says that the worker has that socket;
 *  - whoever waits for the answer goes on after PATIENCE_US, with what has come; what comes later
 *    is closed.
 */
#include "internal.h"
#include "preload/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_US = 1000000, GIVEN_MAX = 65536 };

/* 0, or -errno where nobody can be asked. */
int rc_question_ask(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_question *question = &worker->question;
    int error = -EPERM;
    if (question->bells || !worker->receives)
        return error;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->key.type == SOCK_STREAM && group->lanes[at]->worker == worker &&
                rc_ring_question(engine, group->lanes[at]) == 0) {
                question->bells++;
                error = 0;
            }
    if (!error)
        question->asked_at = rc_now_us();
    return error;
}

/* A message of who answers; false: it was the last. */
bool rc_question_heard(struct rc_worker *worker, const struct rc_shim_caller *caller)
{
    struct rc_question *question = &worker->question;
    struct rc_wire_request said;
    int fd = -1;
    ssize_t got = rc_receive_descriptor(caller->source.fd, &said, sizeof said, &fd);
    bool more = got == sizeof said && said.magic == RC_WIRE_MAGIC && said.operation == RC_WIRE_HAVE;
    if (fd >= 0 && (!more || rc_socket_get(fd, SOL_SOCKET, SO_TYPE) < 0)) {
        rc_reader_discard(fd);
        fd = -1;
    }
    /* Kept, it would hide from its client that the worker closes it. */
    if (fd >= 0 && !question->asked_at) {
        rc_close(&fd);
        return false;
    }
    if (fd < 0)
        return more;
    struct rc_given *all = question->all;
    if (question->count == question->room && question->room < GIVEN_MAX) {
        size_t room = question->room ? 2 * question->room : 64;
        all = realloc(question->all, room * sizeof *all);
        if (all) {
            question->all = all;
            question->room = room;
        }
    }
    if (question->count == question->room || !rc_descriptors_spare(fd)) {
        rc_close(&fd);
        return false;
    }
    question->all[question->count++] = (struct rc_given){fd, rc_socket_inode(fd)};
    return true;
}

/* A bell has ended that asked. */
void rc_question_answered(struct rc_engine *engine, struct rc_worker *worker)
{
    if (!worker->question.bells)
        return;
    worker->question.bells--;
    rc_alarm_set(engine, RC_ALARM_KEPT, rc_now_us());
}

/* That socket, which is the caller's then; -EPERM: it was not sent. */
int rc_question_take(struct rc_worker *worker, uint64_t inode)
{
    struct rc_question *question = &worker->question;
    for (size_t at = 0; at < question->count; at++)
        if (question->all[at].inode == inode) {
            int fd = question->all[at].fd;
            question->all[at] = question->all[--question->count];
            return fd;
        }
    return -EPERM;
}

/* True while it is worth waiting; then who waits for it goes on. */
bool rc_question_look(struct rc_engine *engine, struct rc_worker *worker, int64_t now)
{
    struct rc_question *question = &worker->question;
    if (!question->asked_at)
        return false;
    if (question->bells && now < question->asked_at + PATIENCE_US)
        return true;
    question->asked_at = 0;
    if (question->moves)
        (void)rc_move_begin(engine, worker);
    else
        rc_handover_begin(engine, worker, question->signal);
    rc_question_end(worker);
    return false;
}

/* Closes only: in a forked child too. */
void rc_question_close(const struct rc_worker *worker)
{
    for (size_t at = 0; at < worker->question.count; at++)
        (void)close(worker->question.all[at].fd);
}

/* Bells that are under way stay counted. */
void rc_question_end(struct rc_worker *worker)
{
    rc_question_close(worker);
    free(worker->question.all);
    worker->question = (struct rc_question){.bells = worker->question.bells};
}
