/* dispatch_pass.c - the classical accept-and-pass master, bare, to compare with:
 * dispatch_pass PORT WORKERS COMMAND... runs WORKERS copies of COMMAND, each with one
 * end of a Unix socketpair as descriptor 3, accepts on 127.0.0.1:PORT, and sends each
 * connection to the next worker in turn. PORT 0: any; it is said on stdout. Ends when
 * its stdin does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS_MAX = 512 };

struct message {
    uint32_t magic,
        length; /* as csrc/dispatch/pass.c has it, so that the same worker can read it */
    struct sockaddr_in6 peer;
};

static int pass(int to, int fd, const struct message *head)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)head, sizeof *head};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return (int)sendmsg(to, &message, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    static int ends[WORKERS_MAX];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int one = 1, workers, listener;
    if (argc < 4 || (workers = atoi(argv[2])) < 1 || workers > WORKERS_MAX)
        return 2;
    for (int worker = 0; worker < workers; worker++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
            return 1;
        if (fork() == 0) {
            dup2(pair[1], 3);
            execvp(argv[3], argv + 3);
            _exit(127);
        }
        close(pair[1]);
        ends[worker] = pair[0];
    }
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    at.sin_port = htons((uint16_t)atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &length) < 0)
        return 1;
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    for (unsigned next = 0;;) {
        if (epoll_wait(epoll, &event, 1, -1) < 0 || event.data.fd == 0)
            break;
        for (;;) {
            struct message head = {.magic = 0x72637061u};
            socklen_t room = sizeof head.peer;
            int fd = accept4(listener, (struct sockaddr *)&head.peer, &room, SOCK_CLOEXEC);
            if (fd < 0)
                break;
            head.length = room;
            pass(ends[next++ % (unsigned)workers], fd, &head);
            close(fd);
        }
    }
    return 0; /* the workers see the end of their sockets */
}
