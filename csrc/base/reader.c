/* reader.c - a thread that waits where the master must not: at a worker's memory, in a close.
 *
 * Owns: the thread, and what it read. A page of a worker may be one that somebody else has
 * yet to fill (userfaultfd(2), a file in FUSE), and the last close(2) of a file in FUSE waits
 * for who serves it. Only a kill ends such a wait, and ptrace access is the master's own, not
 * a child's (Yama); so a thread of its own waits, which touches nothing but its block and
 * makes system calls only.
 *
 * Invariants:
 *  - we wait RC_QUICK_MS for it. One that takes longer tells by its event, and ends then;
 *  - else it stays for LINGER_MS, for the next: to make one costs more than what it reads. It
 *    is gone before a worker is forked (rc_readers_rest);
 *  - whoever of the two is last frees the block: us, where the thread may do so never.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef RC_QUICK_MS /* the unit tests count calls, and wait until all is done in one turn */
#define RC_QUICK_MS 5
#endif

enum { LINGER_MS = 20, PAGE = 4096 };

enum state {
    RESTS, /* what it has read is there; or it has read nothing yet */
    ASKED,
    LATE,   /* asked, and nobody waits: it writes its event, and ends */
    LEAVES, /* it ends */
};

struct rc_reader {
    atomic_int users;
    _Atomic uint32_t state; /* a futex */
    int event, theirs;      /* the thread has a number of its own of it */
    bool late;
    pthread_t thread;
    pid_t number;
    struct rc_wanted wanted;
    ssize_t got;
    char bytes[PATH_MAX];
};

/* ---- both ------------------------------------------------------------------------------ */

static int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t us)
{
    struct timespec left = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &left, NULL, 0) < 0 ? -errno : 0;
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool change(struct rc_reader *reader, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(&reader->state, &from, to);
}

static void let_go(struct rc_reader *reader)
{
    if (atomic_fetch_sub(&reader->users, 1) > 1)
        return;
    rc_close(&reader->theirs);
    free(reader);
}

/* ---- the thread ------------------------------------------------------------------------ */

/* A page at a time: what is behind the end of a text may not be there. */
static ssize_t read_memory(struct rc_reader *reader)
{
    const struct rc_wanted *wanted = &reader->wanted;
    size_t got = 0;
    while (got < wanted->length) {
        size_t page = PAGE - (size_t)((wanted->from + got) % PAGE);
        size_t some = page < wanted->length - got ? page : wanted->length - got;
        struct iovec here = {.iov_base = reader->bytes + got, .iov_len = some};
        struct iovec there = {.iov_base = (void *)(uintptr_t)(wanted->from + got), .iov_len = some};
        ssize_t now = process_vm_readv(wanted->process, &here, 1, &there, 1, 0);
        if (now != (ssize_t)some)
            return now < 0 ? -errno : -EFAULT;
        got += some;
        if (wanted->text && memchr(reader->bytes + got - some, '\0', some))
            return (ssize_t)got;
    }
    return wanted->text ? -ENAMETOOLONG : (ssize_t)got;
}

static void *serve(void *given)
{
    struct rc_reader *reader = given;
    const uint64_t one = 1;
    reader->number = (pid_t)syscall(SYS_gettid);
    for (;;) {
        uint32_t state = atomic_load(&reader->state);
        if (state == LEAVES)
            break;
        if (state == RESTS) {
            int error = futex_wait(&reader->state, RESTS, LINGER_MS * 1000);
            if (error == -ETIMEDOUT && change(reader, RESTS, LEAVES))
                break;
            continue;
        }
        reader->got = read_memory(reader);
        if (atomic_exchange(&reader->state, RESTS) == LATE) {
            (void)!write(reader->theirs, &one, sizeof one);
            break;
        }
        futex_wake(&reader->state);
    }
    let_go(reader);
    return NULL;
}

/* No signal of the master's may be taken there. */
static int start(pthread_t *thread, void *(*what)(void *), void *given)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(thread, NULL, what, given);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

/* ---- ours -------------------------------------------------------------------------------- */

/* One that is not late: it is about to end, or told to. */
static void part(struct rc_reader *reader)
{
    if (change(reader, RESTS, LEAVES))
        futex_wake(&reader->state);
    pthread_join(reader->thread, NULL);
    /* The kernel wakes who joins before it has taken the thread out of /proc/self/task. */
    while (syscall(SYS_tgkill, getpid(), reader->number, 0) == 0)
        (void)sched_yield();
    rc_close(&reader->event);
    let_go(reader);
}

static int begin(const struct rc_wanted *wanted, struct rc_reader **out)
{
    struct rc_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return -ENOMEM;
    atomic_init(&reader->users, 2);
    atomic_init(&reader->state, ASKED);
    reader->wanted = *wanted;
    reader->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    reader->theirs = reader->event < 0 ? -1 : fcntl(reader->event, F_DUPFD_CLOEXEC, 3);
    int error = reader->theirs < 0 ? -errno : start(&reader->thread, serve, reader);
    if (error) {
        rc_close(&reader->event);
        rc_close(&reader->theirs);
        free(reader);
        return error;
    }
    *out = reader;
    return 0;
}

/* True if it is done in time. */
static bool wait_for(struct rc_reader *reader)
{
    int64_t until = rc_now_us() + RC_QUICK_MS * 1000;
    while (atomic_load(&reader->state) == ASKED) {
        int64_t left = until - rc_now_us();
        if (left <= 0)
            break;
        (void)futex_wait(&reader->state, ASKED, left);
    }
    reader->late = change(reader, ASKED, LATE);
    if (reader->late)
        pthread_detach(reader->thread);
    return !reader->late;
}

/* At most PATH_MAX bytes of a worker's. 1: they are read (rc_reader_result); 0: they will be,
 * and the event becomes readable; or -errno. rc_reader_put in either case but the last. */
int rc_reader_read(struct rc_engine *engine, const struct rc_wanted *wanted, struct rc_reader **out)
{
    struct rc_reader *reader = engine->reader;
    engine->reader = NULL;
    if (reader) {
        reader->wanted = *wanted;
        if (change(reader, RESTS, ASKED)) {
            futex_wake(&reader->state);
        } else {
            part(reader);
            reader = NULL;
        }
    }
    int error = reader ? 0 : begin(wanted, &reader);
    if (error)
        return error;
    *out = reader;
    return wait_for(reader);
}

int rc_reader_event(const struct rc_reader *reader)
{
    return reader->event;
}

/* How many bytes, or -errno. They are the reader's. */
ssize_t rc_reader_result(const struct rc_reader *reader, const char **bytes)
{
    *bytes = reader->bytes;
    return reader->got;
}

void rc_reader_put(struct rc_engine *engine, struct rc_reader *reader)
{
    if (reader->late) {
        rc_close(&reader->event);
        let_go(reader);
    } else if (engine->reader) {
        part(reader);
    } else {
        engine->reader = reader;
    }
}

/* No thread is left but those that may never end. */
void rc_readers_rest(struct rc_engine *engine)
{
    if (engine->reader)
        part(engine->reader);
    engine->reader = NULL;
}

/* In a forked child, where there is no thread. */
void rc_reader_close(const struct rc_reader *reader)
{
    (void)close(reader->event);
    (void)close(reader->theirs);
}

static void *close_it(void *given)
{
    (void)close((int)(intptr_t)given);
    return NULL;
}

/* What a worker gave us for a socket, and is none. Where there is no thread to be had it
 * stays open: better than to wait for ever. */
void rc_reader_discard(int fd)
{
    pthread_t thread;
    if (start(&thread, close_it, (void *)(intptr_t)fd) == 0)
        pthread_detach(thread);
}
