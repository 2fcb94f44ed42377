/* load.c - the load generator of reload_under_load.py: load PORT [option=value...]
 *
 * Keeps `connections` clients busy against 127.0.0.1:PORT, one thread, ppoll(2).
 * Options: connections, per_connection (requests on one connection; 1: one
 * connection per request), think_us (a client pauses 0..think_us between two
 * requests), timeout_ms (one request), tick (say the count that often).
 *
 * stdin: a line with a number is the version that new connections must get from
 * now on; end of file: finish what has begun, report, end. stdout: JSON lines,
 * {"requests": n} at each tick, the report last. Times are CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 1024, ANSWER_MAX = 8192, DETAILS_MAX = 40, VERSIONS_MAX = 256 };
enum { PAUSE_AFTER_FAILURE_US = 5000 };

enum phase { PAUSING, CONNECTING, ASKED, ANSWERING };
static const char *const phase_names[] = {"pausing", "connecting", "asked", "answering"};

enum kind { REFUSED, RESET, END_OF_FILE, TIMED_OUT, BAD_ANSWER, OTHER, IDLE_RACE, KINDS };
static const char *const kind_names[] = {"refused", "reset", "eof",      "timeout",
                                         "bad",     "other", "idle_race"};

struct client {
    int fd; /* -1: not connected */
    enum phase phase;
    int64_t until;  /* PAUSING: its end; else the request's deadline */
    int64_t began;  /* of the request, connecting included */
    int64_t opened; /* of the connection */
    unsigned served;
    int told, seen;   /* versions known when the connection was opened */
    int pid, version; /* of the last answer on it */
    size_t length;
    char answer[ANSWER_MAX + 1];
};

struct detail {
    int64_t at;
    enum kind kind;
    enum phase phase;
    int error;
    unsigned served;
    int pid, version;
    int64_t age;
};

struct load {
    struct sockaddr_in address;
    long connections, per_connection, think_us, timeout_ms, tick;
    struct client *clients;
    bool stopping;
    int told, seen;
    int64_t began, last_done, stall, stall_at, ended;
    uint32_t *latencies; /* microseconds */
    size_t count, room;
    unsigned long failed[KINDS], idle_closed, opened, versions[VERSIONS_MAX];
    unsigned long old_after_told, old_after_seen;
    struct detail details[DETAILS_MAX];
    size_t detail_count;
    uint64_t random;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t random_below(struct load *load, int64_t most)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return most > 0 ? (int64_t)(load->random % (uint64_t)most) : 0;
}

/* ---- one client ------------------------------------------------------------------ */

static void hang_up(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

static void pause_for(struct client *client, int64_t us)
{
    client->phase = PAUSING;
    client->until = now_us() + us;
}

static void failed(struct load *load, struct client *client, enum kind kind, int error)
{
    bool lost = kind == RESET || kind == END_OF_FILE;
    if (lost && client->phase == ASKED && client->served > 0)
        kind = IDLE_RACE;
    load->failed[kind]++;
    if (load->detail_count < DETAILS_MAX) {
        int64_t now = now_us();
        load->details[load->detail_count++] = (struct detail){now,
                                                              kind,
                                                              client->phase,
                                                              error,
                                                              client->served,
                                                              client->pid,
                                                              client->version,
                                                              now - client->opened};
    }
    hang_up(client);
    pause_for(client, kind == IDLE_RACE ? 0 : PAUSE_AFTER_FAILURE_US);
}

static void failed_by(struct load *load, struct client *client, int error)
{
    if (error == ECONNREFUSED)
        failed(load, client, REFUSED, error);
    else if (error == ECONNRESET || error == EPIPE)
        failed(load, client, RESET, error);
    else
        failed(load, client, OTHER, error);
}

static void ask(struct load *load, struct client *client)
{
    static const char keep[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
    static const char last[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    bool is_last = (long)client->served + 1 >= load->per_connection;
    const char *text = is_last ? last : keep;
    client->phase = ASKED;
    client->length = 0;
    if (send(client->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        failed_by(load, client, errno);
}

static void open_connection(struct load *load, struct client *client)
{
    int one = 1;
    client->phase = CONNECTING;
    client->opened = now_us();
    client->served = 0;
    client->pid = client->version = 0;
    client->told = load->told;
    client->seen = load->seen;
    load->opened++;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        failed_by(load, client, errno);
        return;
    }
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr *address = (struct sockaddr *)&load->address;
    if (connect(client->fd, address, sizeof load->address) == 0)
        ask(load, client);
    else if (errno != EINPROGRESS)
        failed_by(load, client, errno);
}

static void begin(struct load *load, struct client *client)
{
    client->began = now_us();
    client->until = client->began + load->timeout_ms * 1000;
    if (client->fd >= 0)
        ask(load, client);
    else
        open_connection(load, client);
}

/* ---- answers ---------------------------------------------------------------------- */

static long number_after(const char *text, const char *name)
{
    const char *at = strcasestr(text, name);
    if (!at)
        return -1;
    at += strlen(name);
    at += strspn(at, ": \"");
    return strtol(at, NULL, 10);
}

static void completed(struct load *load, struct client *client, bool close_it)
{
    int64_t now = now_us();
    if (load->count == load->room) {
        load->room = load->room ? load->room * 2 : 65536;
        load->latencies = realloc(load->latencies, load->room * sizeof *load->latencies);
        if (!load->latencies)
            abort();
    }
    load->latencies[load->count++] = (uint32_t)(now - client->began);
    if (load->last_done && now - load->last_done > load->stall) {
        load->stall = now - load->last_done;
        load->stall_at = load->last_done;
    }
    load->last_done = now;
    client->served++;
    int version = client->version;
    load->versions[version < 0 || version >= VERSIONS_MAX ? 0 : version]++;
    load->old_after_told += version < client->told;
    load->old_after_seen += version < client->seen;
    if (version > load->seen)
        load->seen = version;
    if (close_it || (long)client->served >= load->per_connection)
        hang_up(client);
    pause_for(client, random_below(load, load->think_us));
    if (load->tick && load->count % (size_t)load->tick == 0) {
        printf("{\"requests\": %zu}\n", load->count);
        fflush(stdout);
    }
}

/* Looks at what has arrived; the answer is whole when its Content-Length is here. */
static void examine(struct load *load, struct client *client)
{
    client->answer[client->length] = 0;
    char *body = strstr(client->answer, "\r\n\r\n");
    if (!body) {
        if (client->length == ANSWER_MAX)
            failed(load, client, BAD_ANSWER, 0);
        return;
    }
    body += 4;
    long expected = number_after(client->answer, "\r\ncontent-length:");
    size_t head = (size_t)(body - client->answer);
    if (strncmp(client->answer, "HTTP/1.", 7) != 0 || strncmp(client->answer + 8, " 200", 4) != 0 ||
        expected < 0 || head + (size_t)expected > ANSWER_MAX) {
        failed(load, client, BAD_ANSWER, 0);
        return;
    }
    if (client->length < head + (size_t)expected)
        return;
    client->version = (int)number_after(body, "\"version\"");
    client->pid = (int)number_after(body, "\"pid\"");
    if (client->version < 1) {
        failed(load, client, BAD_ANSWER, 0);
        return;
    }
    body[-2] = 0;
    completed(load, client, strcasestr(client->answer, "\r\nconnection: close") != NULL);
}

static void readable(struct load *load, struct client *client)
{
    ssize_t got = recv(client->fd, client->answer + client->length, ANSWER_MAX - client->length, 0);
    if (client->phase == PAUSING) { /* the server has closed an idle connection: its right */
        load->idle_closed++;
        hang_up(client);
    } else if (got > 0) {
        client->phase = ANSWERING;
        client->length += (size_t)got;
        examine(load, client);
    } else if (got == 0) {
        failed(load, client, END_OF_FILE, 0);
    } else if (errno != EAGAIN) {
        failed_by(load, client, errno);
    }
}

static void connected(struct load *load, struct client *client)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        failed_by(load, client, error);
    else
        ask(load, client);
}

/* ---- all clients ------------------------------------------------------------------ */

static void hear(struct load *load)
{
    char text[256];
    ssize_t got = read(0, text, sizeof text - 1);
    if (got <= 0) {
        load->stopping = true;
        return;
    }
    text[got] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        load->told = atoi(line);
}

/* Starts what is due; returns when the next thing is, or -1 if nothing is left. */
static int64_t start_due(struct load *load)
{
    int64_t next = -1;
    for (long at = 0; at < load->connections; at++) {
        struct client *client = &load->clients[at];
        int64_t now = now_us();
        if (client->phase != PAUSING && client->until <= now)
            failed(load, client, TIMED_OUT, 0);
        if (client->phase == PAUSING && load->stopping)
            continue;
        if (client->phase == PAUSING && client->until <= now)
            begin(load, client);
        if (next < 0 || client->until < next)
            next = client->until;
    }
    return next;
}

static void turn(struct load *load, int64_t next)
{
    struct pollfd polls[CLIENTS_MAX + 1];
    int64_t left = next - now_us();
    left = left < 0 ? 0 : left;
    struct timespec patience = {left / 1000000, left % 1000000 * 1000};
    polls[0] = (struct pollfd){load->stopping ? -1 : 0, POLLIN, 0};
    for (long at = 0; at < load->connections; at++) {
        struct client *client = &load->clients[at];
        short events = client->phase == CONNECTING ? POLLOUT : POLLIN;
        polls[at + 1] = (struct pollfd){client->fd, events, 0};
    }
    if (ppoll(polls, (nfds_t)load->connections + 1, &patience, NULL) <= 0)
        return;
    if (polls[0].revents)
        hear(load);
    for (long at = 0; at < load->connections; at++) {
        struct client *client = &load->clients[at];
        if (!polls[at + 1].revents)
            continue;
        if (client->phase == CONNECTING)
            connected(load, client);
        else
            readable(load, client);
    }
}

/* ---- the report -------------------------------------------------------------------- */

static int by_size(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t percentile(const struct load *load, double part)
{
    if (load->count == 0)
        return 0;
    size_t at = (size_t)(part * (double)load->count);
    return load->latencies[at < load->count ? at : load->count - 1];
}

static void report_details(const struct load *load)
{
    printf("\"details\": [");
    for (size_t at = 0; at < load->detail_count; at++) {
        const struct detail *one = &load->details[at];
        printf("%s{\"at\": %.6f, \"kind\": \"%s\", \"phase\": \"%s\", \"errno\": %d, ",
               at ? ", " : "", (double)one->at / 1e6, kind_names[one->kind],
               phase_names[one->phase], one->error);
        printf("\"served\": %u, \"pid\": %d, \"version\": %d, \"age_ms\": %.1f}", one->served,
               one->pid, one->version, (double)one->age / 1e3);
    }
    printf("]");
}

static void report(struct load *load)
{
    if (load->count)
        qsort(load->latencies, load->count, sizeof *load->latencies, by_size);
    printf("{\"done\": true, \"requests\": %zu, \"connections\": %lu, \"seconds\": %.3f, ",
           load->count, load->opened, (double)(load->ended - load->began) / 1e6);
    printf("\"failures\": {");
    for (int kind = 0; kind < IDLE_RACE; kind++)
        printf("%s\"%s\": %lu", kind ? ", " : "", kind_names[kind], load->failed[kind]);
    printf("}, \"idle_race\": %lu, \"idle_closed\": %lu, ", load->failed[IDLE_RACE],
           load->idle_closed);
    printf("\"latency_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f, \"max\": %.3f}, ",
           percentile(load, 0.5) / 1e3, percentile(load, 0.99) / 1e3, percentile(load, 0.999) / 1e3,
           percentile(load, 1.0) / 1e3);
    printf("\"stall_ms\": %.3f, \"stall_at\": %.6f, ", (double)load->stall / 1e3,
           (double)load->stall_at / 1e6);
    printf("\"old_after_told\": %lu, \"old_after_seen\": %lu, \"versions\": {",
           load->old_after_told, load->old_after_seen);
    const char *comma = "";
    for (int version = 0; version < VERSIONS_MAX; version++) {
        if (load->versions[version]) {
            printf("%s\"%d\": %lu", comma, version, load->versions[version]);
            comma = ", ";
        }
    }
    printf("}, ");
    report_details(load);
    printf("}\n");
}

/* ---- start -------------------------------------------------------------------------- */

static void set_option(struct load *load, const char *word)
{
    const struct {
        const char *name;
        long *value;
    } options[] = {
        {"connections=", &load->connections},
        {"per_connection=", &load->per_connection},
        {"think_us=", &load->think_us},
        {"timeout_ms=", &load->timeout_ms},
        {"tick=", &load->tick},
    };
    for (size_t at = 0; at < sizeof options / sizeof options[0]; at++) {
        size_t length = strlen(options[at].name);
        if (strncmp(word, options[at].name, length) == 0) {
            *options[at].value = atol(word + length);
            return;
        }
    }
    fprintf(stderr, "load: %s: there is no such option\n", word);
    exit(2);
}

int main(int argc, char **argv)
{
    static struct load load = {
        .connections = 16, .per_connection = 1, .timeout_ms = 10000, .tick = 1000};
    if (argc < 2) {
        fprintf(stderr, "usage: load PORT [option=value...]\n");
        return 2;
    }
    load.address.sin_family = AF_INET;
    load.address.sin_port = htons((uint16_t)atoi(argv[1]));
    load.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int at = 2; at < argc; at++)
        set_option(&load, argv[at]);
    if (load.connections < 1 || load.connections > CLIENTS_MAX)
        return 2;
    load.clients = calloc((size_t)load.connections, sizeof *load.clients);
    if (!load.clients)
        return 1;
    /* Where that is allowed: clients have CPUs of their own, and to wait for one of
     * the server's would be told as the server's stall. */
    (void)setpriority(PRIO_PROCESS, 0, -10);
    load.began = now_us();
    load.random = (uint64_t)load.began | 1;
    for (long at = 0; at < load.connections; at++) {
        load.clients[at].fd = -1;
        pause_for(&load.clients[at], 0);
    }
    for (int64_t next; (next = start_due(&load)) >= 0;)
        turn(&load, next);
    load.ended = now_us();
    report(&load);
    return 0;
}
