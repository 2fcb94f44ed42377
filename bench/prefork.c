/* A bare prefork server in the classical designs: prefork PORT WORKERS DESIGN
 *
 *   blocking           one shared queue; each worker waits in accept
 *   epoll              one shared queue; each worker waits in epoll
 *   reuseport          one queue per worker; the kernel's hash chooses
 *   round_robin        the parent accepts and passes each connection on (SCM_RIGHTS), in turn
 *   least_connections  the same, to the worker that has the fewest
 *
 * With WORKERS 0 (blocking or epoll) it is one worker without a parent, its name in
 * WORKER_ID: what runs under recluster. Otherwise it prints {"port": P, "pids": [...]} when
 * all can accept. It ends with whoever has started it, its workers end with it, and no dead
 * worker is replaced.
 *
 * It answers any HTTP request that comes in one piece (the generators' do), after sleeping
 * N ms if it has "?ms=N": the worker does nothing else meanwhile. Port 0: any.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS_MAX = 1024, BACKLOG = 1024, EVENTS = 64, REQUEST_MAX = 4096 };

struct worker {
    int id;
    int listener;     /* -1: connections come over the channel */
    int channel;      /* -1: they come over the listener */
    atomic_int *open; /* connections it has, where the parent counts them; or NULL */
};

_Noreturn static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- answering --------------------------------------------------------------------- */

/* Reads one request and answers it. False: the connection is over. */
static bool answer(const struct worker *self, int fd)
{
    char request[REQUEST_MAX + 1], text[256], body[128];
    ssize_t got = recv(fd, request, REQUEST_MAX, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    request[got] = 0;
    const char *ms = strstr(request, "?ms=");
    long wait = ms ? strtol(ms + 4, NULL, 10) : 0;
    struct timespec pause = {wait / 1000, wait % 1000 * 1000000};
    if (wait > 0)
        nanosleep(&pause, NULL);
    bool close_it = self->channel < 0 && self->listener < 0; /* a blocking worker has one */
    close_it = close_it || strstr(request, "Connection: close") != NULL;
    int size = snprintf(body, sizeof body, "worker=%d pid=%d\n", self->id, (int)getpid());
    size = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", size,
                    close_it ? "Connection: close\r\n" : "", body);
    return send(fd, text, (size_t)size, MSG_NOSIGNAL) == size && !close_it;
}

/* The parent may not have closed its copy of a passed connection yet. While it has one,
 * close alone leaves the connection in our epoll, with a number that is soon another's. */
static void finish(const struct worker *self, int epoll, int fd)
{
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
    if (self->open)
        atomic_fetch_sub(self->open, 1);
}

/* ---- workers ------------------------------------------------------------------------ */

_Noreturn static void serve_blocking(int id, int listener)
{
    const struct worker alone = {id, -1, -1, NULL};
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        while (answer(&alone, fd))
            ;
        close(fd);
    }
}

/* One connection from the parent; -1: none there. */
static int receive(int channel)
{
    char byte;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    ssize_t got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got == 0)
        exit(0); /* the parent has gone */
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    int fd = -1;
    if (head && head->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

_Noreturn static void serve_epoll(const struct worker *self)
{
    int source = self->channel >= 0 ? self->channel : self->listener;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    watch(epoll, source);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int at = 0; at < count; at++) {
            int fd = events[at].data.fd;
            if (fd != source) {
                if (!answer(self, fd))
                    finish(self, epoll, fd);
                continue;
            }
            int fresh = self->channel >= 0
                            ? receive(source)
                            : accept4(source, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fresh >= 0)
                watch(epoll, fresh);
        }
    }
}

/* ---- the parent ---------------------------------------------------------------------- */

static int listener_on(int port, bool shared_port, bool blocking)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (shared_port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(fd, BACKLOG) < 0)
        die("listen");
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("getsockname");
    return ntohs(address.sin_port);
}

/* Waits while the worker's channel is full, as a simple dispatcher does. */
static bool pass(int channel, int fd)
{
    char byte = 0;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    return sendmsg(channel, &message, MSG_NOSIGNAL) == 1;
}

static int fewest(const atomic_int *open, int workers, int from)
{
    int best = from;
    for (int step = 1; step < workers; step++) {
        int at = (from + step) % workers;
        if (atomic_load(&open[at]) < atomic_load(&open[best]))
            best = at;
    }
    return best;
}

_Noreturn static void dispatch(int listener, const int *channels, atomic_int *open, int workers,
                               bool least)
{
    for (int turn = 0;; turn = (turn + 1) % workers) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        int chosen = least ? fewest(open, workers, turn) : turn;
        atomic_fetch_add(&open[chosen], 1);
        if (!pass(channels[chosen], fd)) /* that worker has died: the client's loss */
            atomic_fetch_sub(&open[chosen], 1);
        close(fd);
    }
}

static void end_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        exit(0);
}

enum design { BLOCKING, EPOLL, REUSEPORT, ROUND_ROBIN, LEAST, DESIGNS };

static const char *const design_names[] = {[BLOCKING] = "blocking",
                                           [EPOLL] = "epoll",
                                           [REUSEPORT] = "reuseport",
                                           [ROUND_ROBIN] = "round_robin",
                                           [LEAST] = "least_connections"};

struct prefork {
    enum design design;
    int workers;
    int listeners[WORKERS_MAX]; /* of each worker; the same one, but for reuseport */
    int channels[WORKERS_MAX];  /* the parent's ends */
    pid_t pids[WORKERS_MAX];
    atomic_int *open; /* by worker, shared with them */
};

static void listen_for_all(struct prefork *self, int port)
{
    bool own = self->design == REUSEPORT;
    bool blocking = self->design != EPOLL && !own;
    for (int at = 0; at < self->workers; at++) {
        bool fresh = at == 0 || own;
        self->listeners[at] = fresh ? listener_on(port, own, blocking) : self->listeners[0];
        port = port_of(self->listeners[0]);
    }
}

/* In the child: keeps what is this worker's, and never returns. */
_Noreturn static void become_worker(struct prefork *self, int at, int channel)
{
    for (int other = 0; other < self->workers; other++)
        if (self->listeners[other] != self->listeners[at])
            close(self->listeners[other]);
    for (int other = 0; channel >= 0 && other <= at; other++)
        close(self->channels[other]);
    if (self->design == BLOCKING)
        serve_blocking(at, self->listeners[at]);
    struct worker worker = {at, self->listeners[at], channel,
                            channel >= 0 ? &self->open[at] : NULL};
    serve_epoll(&worker);
}

static void start_worker(struct prefork *self, int at)
{
    int pair[2] = {-1, -1};
    pid_t parent = getpid();
    if (self->design >= ROUND_ROBIN &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        die("socketpair");
    self->channels[at] = pair[0];
    self->pids[at] = fork();
    if (self->pids[at] < 0)
        die("fork");
    if (self->pids[at] == 0) {
        end_with(parent);
        become_worker(self, at, pair[1]);
    }
    if (pair[1] >= 0)
        close(pair[1]);
}

_Noreturn static void run(struct prefork *self)
{
    printf("{\"port\": %d, \"pids\": [", port_of(self->listeners[0]));
    for (int at = 0; at < self->workers; at++)
        printf("%s%d", at ? ", " : "", (int)self->pids[at]);
    printf("]}\n");
    fflush(stdout);
    if (self->design >= ROUND_ROBIN)
        dispatch(self->listeners[0], self->channels, self->open, self->workers,
                 self->design == LEAST);
    /* A queue ends with its worker, or a dead one's share would hang instead of failing. */
    for (int at = 0; self->design == REUSEPORT && at < self->workers; at++)
        close(self->listeners[at]);
    for (;;)
        pause();
}

_Noreturn static void run_alone(enum design design, int port)
{
    const char *name = getenv("WORKER_ID");
    int listener = listener_on(port, false, design == BLOCKING);
    struct worker self = {name ? atoi(name) : 0, listener, -1, NULL};
    if (design == BLOCKING)
        serve_blocking(self.id, listener);
    serve_epoll(&self);
}

int main(int argc, char **argv)
{
    static struct prefork self = {.design = DESIGNS};
    int port = argc == 4 ? atoi(argv[1]) : 0;
    self.workers = argc == 4 ? atoi(argv[2]) : -1;
    for (enum design at = 0; argc == 4 && at < DESIGNS; at++)
        if (strcmp(argv[3], design_names[at]) == 0)
            self.design = at;
    bool can_be_alone = self.design <= EPOLL;
    if (self.design == DESIGNS || self.workers < !can_be_alone || self.workers > WORKERS_MAX) {
        fprintf(stderr, "usage: prefork PORT WORKERS DESIGN\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    if (self.workers == 0)
        run_alone(self.design, port);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    self.open = mmap(NULL, WORKERS_MAX * sizeof *self.open, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (self.open == MAP_FAILED)
        die("mmap");
    listen_for_all(&self, port);
    for (int at = 0; at < self.workers; at++)
        start_worker(&self, at);
    run(&self);
}
