/* kernel.c - round_robin and least_connections by eBPF: whether it works here.
 *
 * Owns: what an engine has of it beside its groups: the maps of all lanes, their
 * tallies, and the counting program on our cgroup. Opened before the first lane,
 * and tried for real: a program that is refused, and a cgroup that our sockets
 * are not in, are found out here and not when clients come.
 *
 * Invariant: once it is open, only memory can be missing (kernel_plan.c then
 * steers that group by classic BPF).
 */
#include "steer/kernel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRIAL_MS = 100 };

static void kernel_free(struct rc_kernel *kernel)
{
    rc_kernel_plan_free(&kernel->spare);
    rc_bpf_unshare(kernel->tallies, RC_NUMBERS * sizeof *kernel->tallies);
    rc_close(&kernel->link);
    rc_close(&kernel->tallies_map);
    rc_close(&kernel->marks);
    rc_close(&kernel->lanes);
    free(kernel);
}

/* Closes only, so that a forked child may call it too. */
void rc_kernel_close(struct rc_engine *engine)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        rc_kernel_plan_free(&group->plan);
    if (engine->kernel)
        kernel_free(engine->kernel);
    engine->kernel = NULL;
}

/* ---- counting --------------------------------------------------------------------- */

static int attach_count(struct rc_kernel *kernel, const char **refused)
{
    const int maps[RC_MAPS] = {kernel->lanes, kernel->marks, kernel->tallies_map, -1};
    *refused = "bpf: SOCK_OPS";
    int program = rc_bpf_load(RC_BPF_COUNT, maps, 0, NULL, 0);
    if (program < 0)
        return program;
    *refused = "cgroup version 2";
    int cgroup = rc_cgroup_open();
    kernel->link = cgroup;
    if (cgroup >= 0) {
        *refused = "bpf: BPF_CGROUP_SOCK_OPS";
        kernel->link = rc_bpf_link_cgroup(program, cgroup);
    }
    rc_close(&cgroup);
    rc_close(&program);
    return kernel->link < 0 ? kernel->link : 0;
}

/* Waits until the tally says so. Over loopback it does before connect and close
 * return; the wait is for kernels that hand packets to another CPU. */
static bool says(const struct rc_tally *tally, uint32_t established)
{
    for (int ms = 0; ms < TRIAL_MS; ms++) {
        if (__atomic_load_n(&tally->established, __ATOMIC_ACQUIRE) == established)
            return true;
        (void)poll(NULL, 0, 1);
    }
    return false;
}

/* One connection over a listener of our own, on loopback: on a cgroup that our
 * sockets are not in, a program counts nothing and nobody says so. */
static int try_connection(struct rc_kernel *kernel, int listener, int *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 bound;
    const struct linger at_once = {.l_onoff = 1};
    struct rc_mark mark = {.number = rc_kernel_number(kernel)};
    const struct rc_tally *tally = &kernel->tallies[mark.number];
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
        return -errno;
    int error = rc_socket_name(listener, &bound);
    if (!error)
        error = rc_bpf_update(kernel->marks, (uint32_t)listener, &mark);
    if (error)
        return error;
    address.sin_port = bound.sin6_port;
    if (connect(*client, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        return -errno;
    bool counted = says(tally, 1);
    if (setsockopt(*client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) < 0)
        return -errno;
    rc_close(client); /* a reset, and so the other end is closed too */
    kernel->taken[mark.number] = false;
    return counted && says(tally, 0) ? 0 : -ENOMSG;
}

static int try_count(struct rc_kernel *kernel, const char **refused)
{
    const int kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    *refused = "a connection to try the counting";
    int error = 0, listener = socket(AF_INET, kind, 0), client = -1;
    if (listener >= 0)
        client = socket(AF_INET, kind, 0);
    if (client < 0)
        error = -errno;
    else
        error = try_connection(kernel, listener, &client);
    rc_close(&client);
    rc_close(&listener);
    return error;
}

/* ---- opening ---------------------------------------------------------------------- */

static int kernel_open(struct rc_kernel *kernel, const char **refused)
{
    bool counts = kernel->policy == RC_BALANCE_LEAST_CONNECTIONS;
    void *tallies = NULL;
    *refused = "bpf";
    kernel->lanes = rc_bpf_sockarray(RC_NUMBERS);
    if (kernel->lanes < 0)
        return kernel->lanes;
    kernel->tallies_map = rc_bpf_shared(RC_NUMBERS, sizeof *kernel->tallies, &tallies);
    if (kernel->tallies_map < 0)
        return kernel->tallies_map;
    kernel->tallies = tallies;
    if (counts) {
        kernel->marks = rc_bpf_storage();
        if (kernel->marks < 0)
            return kernel->marks;
    }
    int error = rc_kernel_plan_new(kernel, &kernel->spare, 1, refused);
    if (!error && counts)
        error = attach_count(kernel, refused);
    if (!error && counts)
        error = try_count(kernel, refused);
    return error;
}

int rc_balance_kernel(rc_engine *engine, const char **refused)
{
    *refused = "the policy";
    bool turns = engine->policy == RC_BALANCE_ROUND_ROBIN;
    if (!turns && engine->policy != RC_BALANCE_LEAST_CONNECTIONS &&
        engine->policy != RC_BALANCE_AUTO)
        return -EINVAL;
    if (engine->groups || engine->kernel)
        return -EBUSY;
    struct rc_kernel *kernel = calloc(1, sizeof *kernel);
    *refused = "memory";
    if (!kernel)
        return -ENOMEM;
    kernel->policy = turns ? RC_BALANCE_ROUND_ROBIN : RC_BALANCE_LEAST_CONNECTIONS;
    kernel->lanes = kernel->marks = kernel->tallies_map = kernel->link = -1;
    kernel->taken[0] = true; /* nobody's */
    int error = kernel_open(kernel, refused);
    if (error)
        kernel_free(kernel);
    else
        engine->kernel = kernel;
    return error;
}
