/* dispatch_load.c - opens connections as fast as it can: dispatch_load PORT COUNT
 * CLIENTS. Each client connects, reads to the end, closes, again. Prints a JSON line:
 * seconds, connections, failures, and how many there were of each first byte.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in to;
static int epoll;
static long started, ended, failed, wanted;
static long seen[256];

static int begin(void)
{
    struct linger linger = {1, 0}; /* no TIME_WAIT on our side */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    started++;
    return fd;
}

int main(int argc, char **argv)
{
    struct timespec from, till;
    int clients;
    if (argc != 4)
        return 2;
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)atoi(argv[1]));
    wanted = atol(argv[2]);
    clients = atoi(argv[3]);
    epoll = epoll_create1(0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int client = 0; client < clients && started < wanted; client++)
        if (begin() < 0)
            return 1;
    while (ended < wanted) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, 10000);
        if (ready <= 0)
            break;
        for (int at = 0; at < ready; at++) {
            unsigned char byte;
            ssize_t got = recv(events[at].data.fd, &byte, 1, 0);
            if (got < 0 && errno == EAGAIN)
                continue;
            if (got == 1)
                seen[byte]++;
            else
                failed++;
            close(events[at].data.fd);
            ended++;
            if (started < wanted && begin() < 0)
                failed++, ended++, started++;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &till);
    double seconds =
        (double)(till.tv_sec - from.tv_sec) + (double)(till.tv_nsec - from.tv_nsec) / 1e9;
    printf("{\"seconds\": %.4f, \"connections\": %ld, \"failed\": %ld, \"seen\": [", seconds, ended,
           failed);
    for (int at = 0, some = 0; at < 256; at++)
        if (seen[at])
            printf("%s%ld", some++ ? ", " : "", seen[at]);
    printf("]}\n");
    return 0;
}
