/* pass.c - a connection goes to a worker as SCM_RIGHTS over a pair of sockets.
 *
 * Owns: the pair and its messages. The worker has one end, in place of its
 * listening socket; the master has the other, and a duplicate of the worker's, so
 * that what a dead worker did not receive is still there.
 *
 * Invariant: our end is writable only while the other is empty. unix_writable()
 * (net/unix/af_unix.c) is 4 * allocated <= sndbuf; with the smallest sndbuf there
 * is (4608, two skbs of 2048 bytes), a message of 1024 bytes (2304 with its skb) is
 * more than a quarter, and fits.
 */
#include "internal.h"
#include "preload/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

enum { MESSAGE = 1024 };
/* By its name the preload library knows the pair, and what the worker listens on. */
static int name_end(int fd, const struct sockaddr_in6 *address)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const unsigned char *bytes = (const void *)address;
    char *to = name.sun_path + 1;
    to += sprintf(to, RC_PASS_NAME "%llx/", (unsigned long long)rc_socket_inode(fd));
    for (size_t at = 0; at < sizeof *address; at++)
        to += sprintf(to, "%02x", bytes[at]);
    socklen_t length = (socklen_t)(to - (char *)&name);
    return bind(fd, (struct sockaddr *)&name, length) < 0 ? -errno : 0;
}

int rc_pass_pair(const struct sockaddr_in6 *address, int *ours, int *theirs)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    int error = rc_socket_set(ends[0], SOL_SOCKET, SO_SNDBUF, 0); /* the kernel's minimum */
    if (!error)
        error = name_end(ends[0], address);
    if (error) {
        rc_close(&ends[0]);
        rc_close(&ends[1]);
        return error;
    }
    *ours = ends[0];
    *theirs = ends[1];
    return 0;
}

/* Without a connection it is a nudge: only to see whether somebody receives. */
int rc_pass_send(int ours, const struct rc_accepted *accepted)
{
    static const char filling[MESSAGE - sizeof(struct rc_pass_head)];
    struct rc_pass_head head = {.magic = RC_PASS_MAGIC};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)filling, sizeof filling}};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (accepted) {
        head.length = (uint32_t)accepted->length;
        head.peer = accepted->peer;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &accepted->fd, sizeof accepted->fd);
    }
    return sendmsg(ours, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Whether the other end has received all there was (unix_outq_len). */
bool rc_pass_taken(int ours)
{
    int left = 0;
    return ioctl(ours, SIOCOUTQ, &left) == 0 && left == 0;
}

/* 0 and a connection (fd -1: it was a nudge), -EAGAIN, or -errno; end of file is
 * -ECONNABORTED. Never waits. A message whose descriptor finds no free number loses
 * it (MSG_CTRUNC), where accept(2) would leave the connection in its queue: so first
 * see whether there is one. */
int rc_pass_receive(int theirs, struct rc_accepted *out)
{
    struct rc_pass_head head = {0};
    *out = (struct rc_accepted){.fd = -1};
    int place = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    if (place < 0)
        return -errno;
    close(place);
    ssize_t got = rc_receive_descriptor(theirs, &head, sizeof head, &out->fd);
    if (got < 0)
        return (int)got;
    if (got == 0)
        return -ECONNABORTED;
    if (got < (ssize_t)sizeof head || head.magic != RC_PASS_MAGIC ||
        head.length > sizeof head.peer) {
        rc_close(&out->fd);
        return -EPROTO;
    }
    out->length = head.length;
    out->peer = head.peer;
    return 0;
}
