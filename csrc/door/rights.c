/* rights.c - what a process could do itself, where we do it for it.
 *
 * Owns the list of what the caller allows beyond that. Else only for UDP: a bind makes the lane
 * at once, so we must carry it out. What
 * is asked for may be of the kernel's own rules (a port below ip_unprivileged_port_start
 * wants CAP_NET_BIND_SERVICE in the user namespace of the network), for those alone can
 * be known from outside. The thread stands in its bind(2), so its rights stay as they are.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned first_free_port(void)
{
    unsigned port = 1024;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
    if (file) {
        if (fscanf(file, "%u", &port) != 1)
            port = 1024;
        fclose(file);
    }
    return port;
}

static bool has_capability(pid_t thread, unsigned capability)
{
    char path[32], line[256];
    unsigned long long effective = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "CapEff: %llx", &effective) == 1)
            break;
    if (file)
        fclose(file);
    return effective >> capability & 1;
}

/* Capabilities count in the namespace they were given in. */
static bool in_our_user_namespace(pid_t thread)
{
    char path[48], ours[64], theirs[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)thread);
    ssize_t one = readlink("/proc/self/ns/user", ours, sizeof ours);
    ssize_t two = readlink(path, theirs, sizeof theirs);
    return one > 0 && one == two && memcmp(ours, theirs, (size_t)one) == 0;
}

/* ---- what the caller allows ---------------------------------------------------------- */

struct rc_allowed {
    struct sockaddr_in6 address; /* its family AF_UNSPEC: any */
    in_port_t port;
};

int rc_allow_bind(rc_engine *engine, const char *host, unsigned port)
{
    struct rc_allowed one = {.port = htons((uint16_t)port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = one.port};
    one.address.sin6_port = one.port;
    if (port == 0 || port > UINT16_MAX)
        return -EINVAL;
    if (host && inet_pton(AF_INET, host, &four.sin_addr) == 1)
        memcpy(&one.address, &four, sizeof four);
    else if (host && inet_pton(AF_INET6, host, &one.address.sin6_addr) == 1)
        one.address.sin6_family = AF_INET6;
    else if (host)
        return -EINVAL;
    struct rc_allowed *more = realloc(engine->allowed, (engine->alloweds + 1) * sizeof *more);
    if (!more)
        return -ENOMEM;
    more[engine->alloweds++] = one;
    engine->allowed = more;
    return 0;
}

static bool same_host(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b)
{
    if (a->sin6_family != b->sin6_family)
        return false;
    if (a->sin6_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr,
                      sizeof(struct in_addr)) == 0;
    return memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr) == 0;
}

/* Never in another network namespace: there the same port is another thing. */
bool rc_is_allowed(const struct rc_engine *engine, const struct rc_key *key)
{
    for (size_t at = 0; at < engine->alloweds && !key->network; at++) {
        const struct rc_allowed *one = &engine->allowed[at];
        if (one->port == key->address.sin6_port &&
            (one->address.sin6_family == AF_UNSPEC || same_host(&one->address, &key->address)))
            return true;
    }
    return false;
}

/* ---- what the process could do itself -------------------------------------------------- */

/* In another network namespace another user namespace rules, and other ports are free. */
bool rc_may_bind(const struct rc_engine *engine, const struct rc_call *call,
                 const struct rc_key *key)
{
    if (key->network)
        return false;
    return rc_is_allowed(engine, key) || ntohs(key->address.sin6_port) >= first_free_port() ||
           (has_capability(call->thread, CAP_NET_BIND_SERVICE) &&
            in_our_user_namespace(call->thread));
}
