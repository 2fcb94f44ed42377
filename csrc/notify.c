/* notify.c - the door: bind(2) and listen(2) of a worker by seccomp notification.
 *
 * Owns: the filter, and one notification at a time. Does not own what a bind
 * means (bind.c, listen.c). Installed in the child before any user code; everything the
 * worker starts inherits it (seccomp_unotify(2)).
 *
 * Invariant: a notification is received, then its descriptor taken, then its
 * memory read, then checked to be still alive, and only then acted upon: the
 * process may have died, and its number be somebody else's, at any point before.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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
 * runs between fork and exec. Where accept is trapped, it may wait for long, and a
 * signal must be able to end that wait. */
int rc_notify_install(unsigned traps)
{
    const uint8_t accepts = traps & RC_TRAP_ACCEPTS;
    const uint32_t none = UINT32_MAX;
    struct sock_filter text[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SYSCALL_FIELD(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RC_ARCH, 0, 11),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SYSCALL_FIELD(nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_accept4, accepts ? 8 : 9, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_accept, accepts ? 7 : 8, 0),
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
    unsigned killable = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (!accepts)
        killable |= (unsigned)SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

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

static int read_address(pid_t process, uint64_t from, uint64_t length, struct rc_call *call)
{
    union {
        sa_family_t family;
        struct sockaddr_in6 internet;
        struct sockaddr_un path;
    } address;
    socklen_t wanted = length < sizeof address ? (socklen_t)length : sizeof address;
    struct iovec here = {.iov_base = &address, .iov_len = wanted};
    struct iovec there = {.iov_base = (void *)(uintptr_t)from, .iov_len = wanted};
    ssize_t got = process_vm_readv(process, &here, 1, &there, 1, 0);
    if (got < 0)
        return -errno;
    if ((size_t)got != wanted)
        return -EFAULT;
    if (address.family == AF_UNIX) {
        memcpy(&call->path, &address, wanted);
        call->path_length = length <= sizeof call->path ? wanted : 0; /* 0: it is not valid */
    } else {
        call->length = wanted < sizeof call->address ? wanted : sizeof call->address;
        memcpy(&call->address, &address, call->length);
    }
    return 0;
}

/* A string of theirs: read to its end, or to that of its last page, for what is
 * behind may not be there. */
static int read_text(pid_t process, uint64_t from, char *out, size_t room)
{
    size_t got = 0;
    while (got < room) {
        size_t page = 4096 - (size_t)((from + got) & 4095);
        size_t wanted = page < room - got ? page : room - got;
        struct iovec here = {.iov_base = out + got, .iov_len = wanted};
        struct iovec there = {.iov_base = (void *)(uintptr_t)(from + got), .iov_len = wanted};
        ssize_t some = process_vm_readv(process, &here, 1, &there, 1, 0);
        if (some <= 0)
            return -EFAULT;
        if (memchr(out + got, '\0', (size_t)some))
            return 0;
        got += (size_t)some;
    }
    return -ENAMETOOLONG;
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

static void decide_unlink(struct rc_engine *engine, int door, const struct seccomp_notif *notice,
                          const struct rc_call *call, struct rc_answer *answer)
{
    bool relative = notice->data.nr == __NR_unlinkat;
    char path[PATH_MAX];
    int at = relative ? (int)notice->data.args[0] : AT_FDCWD;
    if (call->pid < 0 || (relative && notice->data.args[2] != 0) ||
        read_text(call->pid, notice->data.args[relative ? 1 : 0], path, sizeof path) < 0 ||
        !still_waits(door, notice->id))
        return;
    rc_unix_unlink(engine, call, at, path, answer);
}

static void decide(struct rc_engine *engine, int door, const struct seccomp_notif *notice,
                   struct rc_call *call, struct rc_answer *answer)
{
    bool is_bind = notice->data.nr == __NR_bind;
    call->pid = (pid_t)notice->pid == call->worker->pid ? call->worker->pid
                                                        : rc_process_of((pid_t)notice->pid);
    if (!is_bind && notice->data.nr != __NR_listen) {
        decide_unlink(engine, door, notice, call, answer);
        return;
    }
    call->number = (int)notice->data.args[0];
    call->backlog = (int)notice->data.args[1];
    call->fd =
        call->pid < 0 ? call->pid : rc_take_descriptor(call->worker, call->pid, call->number);
    if (call->fd == -EBADF || call->fd == -ESRCH)
        return; /* the kernel will say the same, or there is nobody to tell */
    if (call->fd < 0) {
        /* Our shortage (EMFILE, ENOMEM). Letting the call pass would put an
         * unknown listener into the group, and every index behind it wrong. */
        answer->pass = false;
        answer->result = call->fd;
        return;
    }
    if (is_bind && notice->data.args[2] > sizeof(struct sockaddr_storage))
        return; /* EINVAL, and the kernel will say so */
    if (is_bind && read_address(call->pid, notice->data.args[1], notice->data.args[2], call) < 0)
        return;
    if (!still_waits(door, notice->id))
        return;
    if (is_bind)
        rc_lanes_bind(engine, call, answer);
    else
        rc_lanes_listen(engine, call, answer);
    if (!answer->pass && answer->result == 0 && answer->replace >= 0) {
        answer->result = put_in_place(door, notice->id, call, answer->replace);
        if (answer->result)
            rc_lanes_refused(answer);
        else if (answer->adopted)
            answer->adopted->arrives_until_ms = 0; /* it is there */
    }
}

/* Serves one notification. The epoll set said there is one, so RECV does not
 * block; one that was withdrawn since is ENOENT. */
int rc_notify_receive(struct rc_engine *engine, struct rc_worker *worker)
{
    struct seccomp_notif notice;
    struct rc_call call = {.worker = worker, .fd = -1};
    struct rc_answer answer = {.pass = true, .replace = -1};
    int door = worker->door.fd;

    memset(&notice, 0, sizeof notice);
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_RECV, &notice) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno;
    bool accepts = notice.data.nr == __NR_accept || notice.data.nr == __NR_accept4;
    if (accepts && rc_accept_asked(engine, worker, door, &notice))
        return 0;
    if (!accepts)
        decide(engine, door, &notice, &call, &answer);
    if (answer.later)
        *answer.later = (struct rc_later){.notice = notice.id};
    else
        rc_notify_reply(door, notice.id, answer.pass, answer.result);
    if (answer.owned)
        rc_close(&answer.replace);
    if (call.fd >= 0)
        rc_close(&call.fd);
    return 0;
}
