/* faults.c - makes the n-th system call of csrc fail, for the unit tests only.
 *
 * Owns: the __wrap_ functions that the linker puts in place of libc's in the
 * test library (conftest.py reads their names out of this file), and one
 * counter. It is off until fault_arm, and off in every forked child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static int countdown, failure, lasting, fires, bad_closes;
static long only_number; /* for syscall(2): only this one; 0: any */
static char only[32], last[32];
static void (*hook)(const char *name);

/* The n-th call (of `name`, if given) fails; `sticky`: and each one after it. */
void fault_arm(int n, int error, const char *name, long number, int sticky)
{
    snprintf(only, sizeof only, "%s", name);
    only_number = number;
    failure = error;
    lasting = sticky;
    countdown = n;
    fires = 0;
    last[0] = '\0';
}

/* How often it failed since fault_arm. */
int fault_disarm(void)
{
    countdown = 0;
    return fires;
}

const char *fault_last(void)
{
    return last;
}

int fault_bad_closes(void)
{
    return bad_closes;
}

/* Called before each wrapped call: what happens in that moment is up to it. */
void fault_hook(void (*function)(const char *))
{
    hook = function;
}

static int hit(const char *name, long number)
{
    if (hook)
        hook(name);
    if (countdown <= 0 || (only[0] && strcmp(only, name) != 0) ||
        (only_number && number != only_number))
        return 0;
    if (--countdown > 0)
        return 0;
    if (lasting)
        countdown = 1;
    fires++;
    snprintf(last, sizeof last, "%s", name);
    errno = failure;
    return 1;
}

#define WRAP(type, failed, name, params, args)                                                     \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return hit(#name, 0) ? failed : __real_##name args;                                        \
    }

WRAP(int, -1, epoll_create1, (int flags), (flags))
WRAP(int, -1, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, -1, eventfd, (unsigned count, int flags), (count, flags))
WRAP(int, -1, timerfd_settime,
     (int fd, int flags, const struct itimerspec *new, struct itimerspec *old),
     (fd, flags, new, old))
WRAP(int, -1, pipe2, (int *ends, int flags), (ends, flags))
WRAP(int, -1, socketpair, (int domain, int type, int protocol, int *ends),
     (domain, type, protocol, ends))
WRAP(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, -1, bind, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length))
WRAP(int, -1, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, -1, connect, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length))
WRAP(int, -1, fchown, (int fd, uid_t user, gid_t group), (fd, user, group))
WRAP(int, -1, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
     (fd, address, length, flags))
WRAP(int, -1, setsockopt, (int fd, int level, int name, const void *value, socklen_t length),
     (fd, level, name, value, length))
WRAP(int, -1, getsockopt, (int fd, int level, int name, void *value, socklen_t *length),
     (fd, level, name, value, length))
WRAP(int, -1, getsockname, (int fd, struct sockaddr *address, socklen_t *length),
     (fd, address, length))
WRAP(ssize_t, -1, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, -1, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(int, -1, linkat, (int from, const char *old, int to, const char *new, int flags),
     (from, old, to, new, flags))
WRAP(int, -1, renameat, (int from, const char *old, int to, const char *new), (from, old, to, new))
WRAP(int, -1, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(int, -1, inotify_init1, (int flags), (flags))
WRAP(int, -1, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))
WRAP(ssize_t, -1, recv, (int fd, void *bytes, size_t room, int flags), (fd, bytes, room, flags))
WRAP(int, -1, poll, (struct pollfd * fds, nfds_t count, int ms), (fds, count, ms))
WRAP(ssize_t, -1, getrandom, (void *out, size_t room, unsigned flags), (out, room, flags))
WRAP(ssize_t, -1, process_vm_readv,
     (pid_t pid, const struct iovec *here, unsigned long here_count, const struct iovec *there,
      unsigned long there_count, unsigned long flags),
     (pid, here, here_count, there, there_count, flags))
WRAP(void *, NULL, calloc, (size_t count, size_t size), (count, size))
WRAP(void *, NULL, realloc, (void *memory, size_t size), (memory, size))
WRAP(void *, MAP_FAILED, mmap,
     (void *where, size_t length, int access, int flags, int fd, off_t offset),
     (where, length, access, flags, fd, offset))
WRAP(int, -1, access, (const char *path, int mode), (path, mode))
WRAP(FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode))

/* Shutting a listener down cannot fail. */
int __real_shutdown(int, int);
int __wrap_shutdown(int fd, int how)
{
    if (hook)
        hook("shutdown");
    return __real_shutdown(fd, how);
}

/* Taking a descriptor out of the set is cleaning up, and cannot fail. */
int __real_epoll_ctl(int, int, int, struct epoll_event *);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (operation != EPOLL_CTL_DEL && hit("epoll_ctl", 0))
        return -1;
    return __real_epoll_ctl(epoll, operation, fd, event);
}

pid_t __real_fork(void);
pid_t __wrap_fork(void)
{
    if (hit("fork", 0))
        return -1;
    pid_t pid = __real_fork();
    if (pid == 0)
        countdown = 0, hook = NULL;
    return pid;
}

/* Closing what is not open would, in a program with threads, close another's. */
int __real_close(int);
int __wrap_close(int fd)
{
    int result = __real_close(fd);
    bad_closes += result < 0 && errno == EBADF;
    return result;
}

/* Variadic ones: more words are read than were given, which the ABIs we build
 * for allow (AddressSanitizer would not), and the kernel ignores the rest. */
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))
#define WORDS(count, after)                                                                        \
    long word[count];                                                                              \
    va_list list;                                                                                  \
    va_start(list, after);                                                                         \
    for (int at = 0; at < count; at++)                                                             \
        word[at] = va_arg(list, long);                                                             \
    va_end(list)

int __real_fcntl(int, int, ...);
UNCHECKED int __wrap_fcntl(int fd, int operation, ...)
{
    WORDS(1, operation);
    return hit("fcntl", 0) ? -1 : __real_fcntl(fd, operation, word[0]);
}

int __real_open(const char *, int, ...);
UNCHECKED int __wrap_open(const char *path, int flags, ...)
{
    WORDS(1, flags);
    return hit("open", 0) ? -1 : __real_open(path, flags, word[0]);
}

int __real_ioctl(int, unsigned long, ...);
UNCHECKED int __wrap_ioctl(int fd, unsigned long operation, ...)
{
    WORDS(1, operation);
    return hit("ioctl", 0) ? -1 : __real_ioctl(fd, operation, word[0]);
}

int __real_prctl(int, ...);
UNCHECKED int __wrap_prctl(int operation, ...)
{
    WORDS(4, operation);
    return hit("prctl", 0) ? -1 : __real_prctl(operation, word[0], word[1], word[2], word[3]);
}

/* Not a fault: what a call whose answer had to wait was answered at last. */
static int answered, last_answer;
struct rc_engine;
struct rc_worker;
struct rc_later;
void fault_later(struct rc_engine *engine, const struct rc_worker *worker,
                 const struct rc_later *later, _Bool pass, int result)
{
    (void)engine, (void)worker, (void)later;
    answered = 1;
    last_answer = pass ? 1 : result;
}

/* Whether there was one since the last time. */
int fault_answer(int *result)
{
    int was = answered;
    answered = 0;
    *result = last_answer;
    return was;
}

long __real_syscall(long, ...);
UNCHECKED long __wrap_syscall(long number, ...)
{
    WORDS(6, number);
    return hit("syscall", number)
               ? -1
               : __real_syscall(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}
