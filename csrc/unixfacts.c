/* unixfacts.c - the AF_UNIX connections that a retired worker has open.
 *
 * Owns nothing. The kernel tells less of them than of TCP's: which there are
 * (/proc/net/unix: an accepted one has its listener's name), and who has them. Not
 * when a byte last moved, so a connection never owes here, and how quiet it is
 * is counted from the first look.
 */
#include "unix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTED = 3 }; /* SS_CONNECTED, linux/net.h */

/* As /proc/net/unix shows the name: abstract ones with @ for each zero byte. */
static bool shown_name(const struct rc_unix_lane *lane, char out[128])
{
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    memset(&name, 0, sizeof name);
    if (getsockname(lane->fd, (struct sockaddr *)&name, &length) < 0 ||
        length <= offsetof(struct sockaddr_un, sun_path))
        return false;
    size_t bytes = length - offsetof(struct sockaddr_un, sun_path);
    if (name.sun_path[0])
        bytes = strnlen(name.sun_path, bytes);
    for (size_t at = 0; at < bytes; at++)
        out[at] = name.sun_path[at] ? name.sun_path[at] : '@';
    out[bytes] = '\0';
    return true;
}

static int add(struct rc_flows *flows, uint32_t inode)
{
    if (flows->count == flows->room) {
        size_t room = flows->room ? flows->room * 2 : 64;
        struct rc_flow *all = realloc(flows->all, room * sizeof *all);
        if (!all)
            return -ENOMEM;
        flows->all = all;
        flows->room = room;
    }
    flows->all[flows->count++] = (struct rc_flow){.inode = inode};
    return 0;
}

/* Those accepted from listeners of that name, whoever has them. */
static int find_accepted(const char *name, struct rc_flows *flows)
{
    char line[512], path[256];
    unsigned state, inode;
    int error = 0;
    FILE *file = fopen("/proc/net/unix", "re");
    if (!file)
        return -errno;
    while (!error && fgets(line, sizeof line, file))
        if (sscanf(line, "%*s %*s %*s %*s %*s %x %u %255[^\n]", &state, &inode, path) == 3 &&
            state == CONNECTED && inode && strcmp(path, name) == 0)
            error = add(flows, inode);
    fclose(file);
    return error;
}

static int by_inode(const void *a, const void *b)
{
    uint32_t one = ((const struct rc_flow *)a)->inode, two = ((const struct rc_flow *)b)->inode;
    return (one > two) - (one < two);
}

/* How many the worker's processes hold, or -errno. */
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker)
{
    struct rc_flows flows = {0};
    char name[128];
    int error = 0, held = 0;
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next)
        for (const struct rc_unix_lane *lane = group->lanes; lane && !error; lane = lane->next)
            if (rc_unix_is_member(lane, worker) && shown_name(lane, name))
                error = find_accepted(name, &flows);
    if (!error && flows.count) {
        qsort(flows.all, flows.count, sizeof *flows.all, by_inode);
        error = rc_holders_mark(worker->pid, &flows);
    }
    for (size_t at = 0; at < flows.count; at++)
        held += flows.all[at].held && (!at || flows.all[at - 1].inode != flows.all[at].inode);
    free(flows.all);
    return error ? error : held;
}
