/* notify.c - the door: bind(2) and listen(2) of a worker by seccomp notification.
 *
 * Owns: the filter, and one notification at a time. Does not own what a bind
 * means (bind.c, listen.c). Installed in the child before any user code; everything the
 * worker starts inherits it (seccomp_unotify(2)).
 *
 * Invariant: a notification is received, then its descriptor taken, then its
 * memory read (which may take for ever: look.c), then checked to be still alive, and only
 * then acted upon: the process may have died, and its number be somebody else's, at any
 * point before.
 */
#include "internal.h"
#include "preload/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#if defined(__x86_64__)
#define RC_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define RC_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define RC_ARCH AUDIT_ARCH_RISCV64
#else
#error "recluster does not know the audit architecture of this machine"
#endif

/* Name look-ups bind a 12-byte netlink address each time, and must neither pay
 * for us nor hang when the master is stopped. A filter sees no memory, so an
 * AF_UNIX address of that length (nine bytes of path) is not seen either; all
 * others are. One of two bytes has no name. */
enum { SHORTEST_ADDRESS = 3 };
#ifdef __NR_unlink
#define RC_NR_UNLINK __NR_unlink
#else
#define RC_NR_UNLINK __NR_unlinkat
#endif
#define SYSCALL_FIELD(field) ((uint32_t)offsetof(struct seccomp_data, field))

static int seccomp(unsigned operation, unsigned flags, void *argument)
{
    return (int)syscall(SYS_seccomp, operation, flags, argument);
}

/* Returns the listener (closed on exec), or -errno. Only system calls: this
 * runs between fork and exec. */
int rc_notify_install(unsigned traps)
{
    const uint32_t none = UINT32_MAX;
    struct sock_filter text[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SYSCALL_FIELD(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RC_ARCH, 0, 9),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SYSCALL_FIELD(nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_listen, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, traps & RC_TRAP_UNLINKS ? RC_NR_UNLINK : none, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, traps & RC_TRAP_UNLINKS ? __NR_unlinkat : none, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bind, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SYSCALL_FIELD(args[2])), /* low half: little endian */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RC_NETLINK_LENGTH, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SHORTEST_ADDRESS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof text / sizeof text[0], .filter = text};
    const unsigned killable =
        SECCOMP_FILTER_FLAG_NEW_LISTENER | (unsigned)SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

    int listener = seccomp(SECCOMP_SET_MODE_FILTER, killable, &program);
    if (listener < 0 && errno == EACCES) {
        /* Without CAP_SYS_ADMIN a filter needs no_new_privs; with it we leave
         * the bit alone, for it breaks setcap servers, sudo and sendmail. */
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return -errno;
        listener = seccomp(SECCOMP_SET_MODE_FILTER, killable, &program);
    }
    if (listener < 0 && errno == EINVAL) /* before Linux 5.19 */
        listener = seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return listener < 0 ? -errno : listener;
}

/* Of `length` bytes, as the worker has said; here there are as many as can matter. */
static void put_address(struct rc_call *call, const char *bytes, size_t got, uint32_t length)
{
    sa_family_t family;
    memcpy(&family, bytes, sizeof family);
    if (family == AF_UNIX) {
        memcpy(&call->path, bytes, got < sizeof call->path ? got : sizeof call->path);
        call->path_length = length <= sizeof call->path ? length : 0; /* 0: it is not valid */
    } else {
        call->length = got < sizeof call->address ? (socklen_t)got : sizeof call->address;
        memcpy(&call->address, bytes, call->length);
    }
}

/* The library has put the address into the call itself (wire.h). It is as good as what a thread
 * would read in the worker's memory: what counts is what the kernel does. */
static bool is_told(const struct seccomp_notif *notice, struct rc_call *call)
{
    uint64_t first[3];
    struct rc_told told;
    memcpy(first, notice->data.args, sizeof first);
    memcpy(&told, &notice->data.args[3], sizeof told);
    if (!told.check || told.check != rc_told_check(&told, first))
        return false;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = told.port};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = told.port};
    four.sin_addr.s_addr = told.host[0];
    memcpy(&six.sin6_addr, told.host, sizeof told.host);
    if (told.family == AF_INET)
        put_address(call, (const char *)&four, sizeof four, sizeof four);
    else
        put_address(call, (const char *)&six, sizeof six, sizeof six);
    return true;
}

static bool still_waits(int door, uint64_t id)
{
    return ioctl(door, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

/* O_CLOEXEC is the number's, not the description's: keep what theirs had. */
static uint32_t descriptor_flags(pid_t process, int number)
{
    char path[64];
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)process, number);
    FILE *file = fopen(path, "re");
    if (!file)
        return O_CLOEXEC;
    if (fscanf(file, "pos: %*d flags: %o", &flags) != 1)
        flags = O_CLOEXEC;
    fclose(file);
    return flags & O_CLOEXEC;
}

static int put_in_place(int door, uint64_t id, const struct rc_call *call, int fd)
{
    struct seccomp_notif_addfd add = {
        .id = id,
        .flags = SECCOMP_ADDFD_FLAG_SETFD,
        .srcfd = (uint32_t)fd,
        .newfd = (uint32_t)call->number,
        .newfd_flags = descriptor_flags(call->pid, call->number),
    };
    return ioctl(door, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0 ? -errno : 0;
}

static void carry_out(struct rc_engine *engine, int door, uint64_t id, const struct rc_call *call,
                      bool is_bind, struct rc_answer *answer)
{
    if (!still_waits(door, id))
        return;
    if (is_bind)
        rc_lanes_bind(engine, call, answer);
    else
        rc_lanes_listen(engine, call, answer);
    if (answer->result == 0 && answer->replace >= 0) {
        int error = put_in_place(door, id, call, answer->replace);
        if (error && !answer->pass) /* else it does with its own */
            answer->result = error;
        if (error)
            rc_lanes_refused(answer);
        else if (answer->adopted)
            answer->adopted->arrives_until_ms = 0; /* it is there */
    }
}

static void reply(struct rc_engine *engine, int door, uint64_t id, struct rc_answer *answer)
{
    if (answer->later)
        *answer->later = rc_later_notice(id);
    else
        rc_notify_reply(engine->asked, door, id, answer->pass, answer->result);
    if (answer->owned)
        rc_close(&answer->replace);
}

/* What was asked for is known. */
static void looked(struct rc_engine *engine, struct rc_look *look, struct rc_worker *worker)
{
    struct rc_answer answer = {.pass = true, .replace = -1};
    const char *bytes;
    ssize_t got = rc_look_result(look, &bytes);
    look->call.worker = worker;
    if (got > 0 && look->is_bind) {
        put_address(&look->call, bytes, (size_t)got, look->length);
        carry_out(engine, worker->door.fd, look->notice, &look->call, true, &answer);
    } else if (got > 0 && still_waits(worker->door.fd, look->notice)) {
        rc_unix_unlink(engine, &look->call, look->at, bytes, &answer);
    }
    reply(engine, worker->door.fd, look->notice, &answer);
    rc_look_end(engine, look);
}

/* Later than at once; its worker may be gone. */
void rc_notify_looked(struct rc_engine *engine, struct rc_source *source)
{
    struct rc_look *look = RC_CONTAINER(source, struct rc_look, source);
    struct rc_worker *worker = rc_find(engine, look->worker);
    if (worker && worker->door.fd >= 0)
        looked(engine, look, worker);
    else {
        rc_asked_done(engine->asked, look->notice);
        rc_look_end(engine, look);
    }
}

/* True if the answer is given, or will be; the call's descriptor is the look's then. */
static bool look(struct rc_engine *engine, const struct seccomp_notif *notice,
                 const struct rc_call *call, struct rc_answer *answer)
{
    enum {
        LONGEST = sizeof(struct sockaddr_un) > sizeof(struct sockaddr_in6)
            ? sizeof(struct sockaddr_un)
            : sizeof(struct sockaddr_in6)
    };
    struct rc_look *look = calloc(1, sizeof *look);
    bool is_bind = notice->data.nr == __NR_bind, relative = notice->data.nr == __NR_unlinkat;
    uint32_t length = (uint32_t)notice->data.args[2]; /* of a bind; the kernel takes an int */
    int begun = -ENOMEM;
    if (look) {
        *look = (struct rc_look){.worker = call->worker->id,
                                 .notice = notice->id,
                                 .call = *call,
                                 .at = relative ? (int)notice->data.args[0] : AT_FDCWD,
                                 .is_bind = is_bind,
                                 .length = length,
                                 .source.fd = -1};
        begun = rc_look_begin(engine, look, notice->data.args[is_bind || relative ? 1 : 0],
                              !is_bind           ? PATH_MAX
                              : length < LONGEST ? length
                                                 : LONGEST,
                              !is_bind);
    }
    if (begun > 0)
        looked(engine, look, call->worker);
    if (begun < 0) {
        free(look);
        answer->pass = false;
        answer->result = begun;
    }
    return begun >= 0;
}

/* It has rights that we lack (a program that was root's, before us without CAP_SYS_PTRACE),
 * and so its descriptors and memory are not ours to look at. Its bind passes: it is between
 * it and the kernel. A listen would make a lane that we do not know, in a group of ours if
 * its bind was seen: that cannot be. */
static void blind(struct rc_engine *engine, const struct seccomp_notif *notice,
                  const struct rc_call *call, struct rc_answer *answer)
{
    struct rc_worker *worker = call->worker;
    if (!worker->blind)
        rc_emit(engine, RC_EVENT_BLIND, worker->id, EPERM, NULL, 0);
    worker->blind = true;
    for (unsigned at = 0; notice->data.nr == __NR_listen && at < worker->pendings; at++)
        if (worker->pending[at].pid == call->pid && worker->pending[at].fd == call->number) {
            answer->pass = false;
            answer->result = -EPERM;
        }
}

/* True if the answer is given, or will be. */
static bool decide(struct rc_engine *engine, int door, const struct seccomp_notif *notice,
                   struct rc_call *call, struct rc_answer *answer)
{
    bool is_bind = notice->data.nr == __NR_bind;
    call->thread = (pid_t)notice->pid;
    call->pid = (pid_t)notice->pid == call->worker->pid ? call->worker->pid
                                                        : rc_process_of((pid_t)notice->pid);
    rc_unix_came_back(engine, call->worker, call->thread);
    if (!is_bind && notice->data.nr != __NR_listen) {
        bool directory = notice->data.nr == __NR_unlinkat && (int)notice->data.args[2] != 0;
        return call->pid >= 0 && !directory && look(engine, notice, call, answer);
    }
    call->number = (int)notice->data.args[0];
    call->backlog = (int)notice->data.args[1];
    call->fd =
        call->pid < 0 ? call->pid : rc_take_descriptor(call->worker, call->pid, call->number);
    if (call->fd == -EBADF || call->fd == -ESRCH || call->fd == -ENOTSOCK)
        return false; /* the kernel will say the same, or there is nobody to tell */
    if (call->fd == -EPERM) {
        blind(engine, notice, call, answer);
        return false;
    }
    if (call->fd < 0) {
        /* Our shortage (EMFILE, ENOMEM). Letting the call pass would put an
         * unknown listener into the group, and every index behind it wrong. */
        answer->pass = false;
        answer->result = call->fd;
        return false;
    }
    if (is_bind && (uint32_t)notice->data.args[2] > sizeof(struct sockaddr_storage))
        return false; /* EINVAL, and the kernel will say so */
    if (is_bind && !is_told(notice, call))
        return look(engine, notice, call, answer);
    carry_out(engine, door, notice->id, call, is_bind, answer);
    return false;
}

/* Serves one notification. The epoll set said there is one, so RECV does not
 * block; one that was withdrawn since is ENOENT. */
int rc_notify_receive(struct rc_engine *engine, struct rc_worker *worker)
{
    struct seccomp_notif notice, *place = rc_asked_place(engine->asked);
    struct rc_call call = {.worker = worker, .fd = -1};
    struct rc_answer answer = {.pass = true, .replace = -1};
    int door = worker->door.fd;

    memset(&notice, 0, sizeof notice);
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_RECV, place ? place : &notice) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno;
    if (place)
        notice = *place;
    if (decide(engine, door, &notice, &call, &answer))
        return 0;
    reply(engine, door, notice.id, &answer);
    rc_close(&call.fd);
    return 0;
}
