/* unixfacts.c - the AF_UNIX connections that a worker has open.
 *
 * Owns nothing. The kernel tells less of them than of TCP's: which there are
 * (/proc/net/unix: an accepted one has its listener's name), and who has them. Not
 * when a byte last moved, so a connection never owes here, and how quiet it is
 * is counted from the first look.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTED = 3 }; /* SS_CONNECTED, linux/net.h */

/* As /proc/net/unix shows the name: abstract ones with @ for each zero byte. */
static bool shown_name(const struct rc_unix_lane *lane, char out[128])
{
    struct sockaddr_un name;
    size_t bytes = rc_unix_name_at(lane->fd, &name);
    for (size_t at = 0; at < bytes; at++)
        out[at] = name.sun_path[at] ? name.sun_path[at] : '@';
    out[bytes] = '\0';
    return bytes > 0;
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
            error = rc_flows_add(flows, &(struct rc_flow){.inode = inode});
    fclose(file);
    return error;
}

/* How many the worker's processes hold, or -errno. */
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker)
{
    struct rc_flows flows = {0};
    char name[128];
    int error = 0;
    for (const struct rc_unix_lane *lane = engine->unixes; lane && !error; lane = lane->next)
        if (rc_unix_is_member(lane, worker) && shown_name(lane, name))
            error = find_accepted(name, &flows);
    int held = rc_holders_count(worker->pid, &flows);
    return error ? error : held;
}
