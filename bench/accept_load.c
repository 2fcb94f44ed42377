/* accept_load.c - connections as fast as they are taken: accept_load PORT SECONDS AT_ONCE
 *
 * Keeps AT_ONCE connections in the making against 127.0.0.1:PORT, one request on each, from
 * 250 client addresses; one thread, epoll. A connection is done when the server has closed
 * it behind an answer. stdout: one line of JSON with the connections done, those that
 * failed, the seconds, and the CPU seconds of this process, that it may be told when it was
 * the bottleneck. The generator of accept_cost.py and accept_designs.py.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, ADDRESSES = 250, FDS_MAX = 65536 };

struct load {
    struct sockaddr_in server;
    int epoll;
    unsigned turn;
    bool answered[FDS_MAX]; /* by descriptor */
    unsigned long done, failed;
    long in_the_making;
};

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void over(struct load *load, int fd)
{
    if (load->answered[fd])
        load->done++;
    else
        load->failed++;
    load->in_the_making--;
    close(fd);
}

/* False: the request could not be sent yet. */
static bool ask(int fd)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    return send(fd, text, sizeof text - 1, MSG_NOSIGNAL) == (ssize_t)sizeof text - 1;
}

static void begin(struct load *load)
{
    int one = 1;
    unsigned client = load->turn++ % ADDRESSES;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f010002 + client * 257)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || fd >= FDS_MAX) {
        perror("socket");
        exit(1);
    }
    load->answered[fd] = false;
    load->in_the_making++;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        (connect(fd, (struct sockaddr *)&load->server, sizeof load->server) < 0 &&
         errno != EINPROGRESS)) {
        over(load, fd);
        return;
    }
    /* On the loopback the handshake is done by now, but for a full queue. */
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (!ask(fd))
        event.events |= EPOLLOUT;
    epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void look(struct load *load, const struct epoll_event *event)
{
    char answer[4096];
    int fd = event->data.fd;
    if (event->events & EPOLLOUT) {
        struct epoll_event next = {.events = EPOLLIN, .data.fd = fd};
        if (ask(fd))
            epoll_ctl(load->epoll, EPOLL_CTL_MOD, fd, &next);
        else
            over(load, fd);
        return;
    }
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    if (got > 0)
        load->answered[fd] = true;
    else if (got == 0 || errno != EAGAIN)
        over(load, fd);
}

int main(int argc, char **argv)
{
    static struct load load;
    if (argc != 4) {
        fprintf(stderr, "usage: accept_load PORT SECONDS AT_ONCE\n");
        return 2;
    }
    double seconds = atof(argv[2]);
    long at_once = atol(argv[3]);
    load.server = (struct sockaddr_in){.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)atoi(argv[1])),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    double began = now(), at = began;
    while (at - began < seconds) {
        struct epoll_event events[EVENTS];
        while (load.in_the_making < at_once)
            begin(&load);
        int count = epoll_wait(load.epoll, events, EVENTS, 100);
        for (int one = 0; one < count; one++)
            look(&load, &events[one]);
        at = now();
    }
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    printf("{\"connections\": %lu, \"failed\": %lu, \"seconds\": %.6f, \"cpu\": %.6f}\n", load.done,
           load.failed, at - began, cpu);
    return 0;
}
