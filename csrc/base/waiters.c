/* waiters.c - does a worker wait for connections at a listening socket, be it one of its
 * threads or of its processes' (/proc/PID/task/TID/syscall, proc(5))?
 *
 * Owns nothing. Needs ptrace access, which the parent of the same user has. Seen are accept, epoll
 * (by what is in it), poll and select (by their sets, which are read in the process's memory), and
 * io_uring, in which nobody can look, but whoever waits in it and has the socket is believed.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NUMBERS = 16 };

struct question {
    struct rc_engine *engine;
    uint64_t inode;
    bool busy;
};

/* A process, and the numbers by which it has the socket. */
struct holder {
    pid_t pid;
    unsigned count;
    long numbers[NUMBERS];
};

static bool has(const struct holder *holder, long number)
{
    for (unsigned at = 0; at < holder->count; at++)
        if (holder->numbers[at] == number)
            return true;
    return false;
}

/* ---- sets -------------------------------------------------------------------------------- */

typedef bool in_set(const struct holder *holder, const char *bytes, size_t length);

static bool in_poll(const struct holder *holder, const char *bytes, size_t length)
{
    struct pollfd one;
    for (size_t at = 0; at + sizeof one <= length; at += sizeof one) {
        memcpy(&one, bytes + at, sizeof one);
        if (one.events & POLLIN && has(holder, one.fd))
            return true;
    }
    return false;
}

static bool in_select(const struct holder *holder, const char *bytes, size_t length)
{
    for (unsigned at = 0; at < holder->count; at++) {
        size_t byte = (size_t)holder->numbers[at] / 8;
        if (byte < length && bytes[byte] >> (holder->numbers[at] % 8) & 1)
            return true;
    }
    return false;
}

/* 1, 0, or -errno: also where the memory does not come (reader.c). A set that is longer than
 * what is read at once has its head looked at. */
static int look_in(const struct question *question, const struct holder *holder,
                   unsigned long long from, unsigned long long length, in_set *is_in)
{
    struct rc_wanted wanted = {holder->pid, from, length < PATH_MAX ? (size_t)length : PATH_MAX,
                               false};
    struct rc_reader *reader;
    const char *bytes;
    if (!from || !wanted.length)
        return 0;
    int done = rc_reader_read(question->engine, &wanted, &reader);
    if (done < 0)
        return done;
    ssize_t got = done ? rc_reader_result(reader, &bytes) : -EFAULT;
    /* EFAULT of one that was read: the thread is elsewhere by now */
    int result = got > 0                  ? is_in(holder, bytes, (size_t)got)
                 : done && got == -EFAULT ? 0
                                          : (int)got;
    rc_reader_put(question->engine, reader);
    return result;
}

/* ---- calls -------------------------------------------------------------------------------- */

/* 1 if such a call waits at the socket, 0, or -errno. */
static int waits_there(const struct question *question, const struct holder *holder,
                       const struct rc_thread_call *call)
{
    const unsigned long long *argument = call->argument;
    switch (rc_thread_waits(call)) {
    case RC_WAIT_ACCEPT:
        return has(holder, (int)argument[0]);
    case RC_WAIT_EPOLL:
        return rc_epoll_has(holder->pid, (int)argument[0], question->inode);
    case RC_WAIT_POLL:
        return look_in(question, holder, argument[0], argument[1] * sizeof(struct pollfd), in_poll);
    case RC_WAIT_SELECT: /* sets are of whole words */
        return look_in(question, holder, argument[1],
                       (argument[0] + NFDBITS - 1) / NFDBITS * sizeof(fd_mask), in_select);
    default:
        return call->number == SYS_io_uring_enter;
    }
}

/* ---- processes ------------------------------------------------------------------------------ */

static int find_numbers(struct holder *holder, uint64_t inode)
{
    DIR *descriptors = rc_proc_open(holder->pid, "fd");
    if (!descriptors)
        return errno == ENOENT || errno == ESRCH ? 0 : -errno;
    for (long number; holder->count < NUMBERS && (number = rc_proc_next(descriptors)) >= 0;)
        if (rc_socket_at(holder->pid, (int)number) == inode)
            holder->numbers[holder->count++] = number;
    closedir(descriptors);
    return 0;
}

struct visited {
    struct question *question;
    const struct holder *holder;
};

static int visit_thread(const struct rc_thread_call *call, void *given)
{
    const struct visited *visited = given;
    visited->question->busy |= call->number < 0;
    if (call->number < 0 || !visited->holder->count)
        return 0;
    return waits_there(visited->question, visited->holder, call);
}

/* One that has not the socket may still be about to give it to another, so whether it runs
 * counts too. */
static int visit(pid_t pid, void *given)
{
    struct question *question = given;
    const bool busy = question->busy;
    struct holder holder = {.pid = pid};
    struct visited visited = {question, &holder};
    int result = find_numbers(&holder, question->inode);
    if (!result)
        result = rc_threads_visit(pid, visit_thread, &visited);
    if (result <= 0 && rc_is_zombie(pid)) { /* a child that has failed: it does nothing more */
        question->busy = busy;
        return 0;
    }
    return result;
}

/* An rc_waiting, or -errno where it cannot be known. */
int rc_waiters_look(struct rc_engine *engine, const struct rc_worker *worker, uint64_t inode)
{
    struct question question = {.engine = engine, .inode = inode};
    int result = rc_holders_visit(worker->pid, visit, &question);
    if (result < 0)
        return result;
    return result ? RC_WAITS_THERE : question.busy ? RC_WAITS_BUSY : RC_WAITS_IDLE;
}
