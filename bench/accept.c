/* accept.c - what steering costs for each connection: accept LANES CONNECTIONS ROUNDS
 *
 * The engine's own programs (csrc/steer/steering.c), on LANES listeners of one process
 * and one thread: connect over loopback, epoll, accept, close both, CONNECTIONS
 * times in a round. The kernel's own hash and each policy take turns, in groups of
 * their own, so noise meets all alike. stdout: a line per policy and round,
 * "NAME wall_ns cpu_ns" for one connection; and "NAME attach_ns", once each.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { LANES_MAX = 1024 };

static const struct {
    const char *name;
    enum rc_policy policy;
    int weights;
} policies[] = {
    {"plain", RC_BALANCE_AUTO, -1},
    {"reuseport", RC_BALANCE_REUSEPORT, 0},
    {"weighted", RC_BALANCE_WEIGHTED, 1},
    {"source_ip", RC_BALANCE_SOURCE_IP, 0},
};
enum { POLICIES = sizeof policies / sizeof policies[0] };

struct group {
    int lanes[LANES_MAX], epoll;
    struct sockaddr_in address;
};

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void open_group(struct group *group, int lanes)
{
    socklen_t length = sizeof group->address;
    int one = 1;
    group->address.sin_family = AF_INET;
    group->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    group->epoll = epoll_create1(0);
    for (int at = 0; at < lanes; at++) {
        int fd = group->lanes[at] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&group->address, length) < 0 || listen(fd, 1024) < 0)
            die("listen");
        getsockname(fd, (struct sockaddr *)&group->address, &length);
        if (epoll_ctl(group->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static void attach(const struct group *group, int lanes, int policy)
{
    struct rc_choice choices[LANES_MAX];
    for (int at = 0; at < lanes; at++)
        choices[at] = (struct rc_choice){
            .index = (unsigned)at,
            .worker = (uint32_t)at + 1,
            .slot = (uint32_t)at,
            .weight = policies[policy].weights ? 1 + at % 3 : 1,
        };
    int64_t began = now(CLOCK_MONOTONIC);
    for (int times = 0; times < 20; times++)
        if (rc_steering_attach(group->lanes[0], policies[policy].policy, choices, (unsigned)lanes,
                               NULL) < 0)
            die("attach");
    printf("%s %lld\n", policies[policy].name, (long long)(now(CLOCK_MONOTONIC) - began) / 20);
}

static void one_connection(const struct group *group)
{
    const struct linger reset = {.l_onoff = 1}; /* leaves no TIME_WAIT */
    int client = socket(AF_INET, SOCK_STREAM, 0);
    struct epoll_event event;
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(client, (const struct sockaddr *)&group->address, sizeof group->address) < 0)
        die("connect");
    if (epoll_wait(group->epoll, &event, 1, -1) != 1)
        die("epoll_wait");
    int accepted = accept4(event.data.fd, NULL, NULL, SOCK_CLOEXEC);
    if (accepted < 0)
        die("accept");
    close(client);
    close(accepted);
}

int main(int count, char **words)
{
    int lanes = count > 1 ? atoi(words[1]) : 16;
    int connections = count > 2 ? atoi(words[2]) : 2000, rounds = count > 3 ? atoi(words[3]) : 30;
    static struct group groups[POLICIES];
    for (int at = 0; at < POLICIES; at++) {
        open_group(&groups[at], lanes);
        if (policies[at].weights >= 0)
            attach(&groups[at], lanes, at);
    }
    for (int round = 0; round < rounds; round++)
        for (int turn = 0; turn < POLICIES; turn++) {
            int at = (turn + round) % POLICIES;
            int64_t wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
            for (int done = 0; done < connections; done++)
                one_connection(&groups[at]);
            wall = now(CLOCK_MONOTONIC) - wall;
            cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
            printf("%s %lld %lld\n", policies[at].name, (long long)wall / connections,
                   (long long)cpu / connections);
        }
    return 0;
}
