/* unixplace.c - where an AF_UNIX address leads, and that it does not go missing.
 *
 * Owns the choice of the lane at the address, the inotify descriptor, and the
 * answer to a worker's unlink(2). Servers remove their path before they bind and
 * when they exit: uvicorn, asyncio, gunicorn, hypercorn; while the cluster lives,
 * that path is not theirs alone.
 *
 * Invariant: a lane in a directory has a second name (its alias), so what is
 * removed can be put back: an inode without a name cannot get one (linkat(2)).
 */
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the lane at the address -------------------------------------------------- */

static unsigned long score(const struct rc_unix_lane *lane)
{
    unsigned long living = 0, dead = 0;
    for (unsigned at = 0; at < lane->count; at++)
        if (lane->members[at]->live)
            *(lane->members[at]->dead ? &dead : &living) += 1;
    return living << 16 | dead;
}

/* Of the lanes the one with the most live workers: there can be one only, and in
 * a rolling reload each turn moves it when the new generation outnumbers the old. */
static struct rc_unix_lane *choose(const struct rc_unix_group *group)
{
    struct rc_unix_lane *best = NULL;
    for (struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        if (score(lane) > (best ? score(best) : 0)) /* newest first: it wins a tie */
            best = lane;
    return best ? best : group->placed ? group->placed : group->lanes;
}

static bool is_ours(const struct rc_unix_group *group, const struct rc_unix_node *node)
{
    for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        if (rc_unix_same_node(&lane->node, node))
            return true;
    for (const struct rc_unix_bound *bound = group->bound; bound; bound = bound->next)
        if (rc_unix_same_node(&bound->node, node))
            return true;
    return group->refusing && rc_unix_same_node(&group->refusing_node, node);
}

/* A socket that is bound and that nobody has: connecting to it is refused, and
 * a server that unlinks its path at the end finds one. */
static int make_refusing(struct rc_unix_group *group)
{
    if (group->refusing)
        return 0;
    unsigned alias = ++group->aliases;
    char short_name[32], name[NAME_MAX + 1];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(short_name, sizeof short_name, ".recluster-%d", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", group->directory,
             short_name);
    rc_unix_alias(group, alias, name);
    int error = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)unlinkat(group->directory, short_name, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        renameat(group->directory, short_name, group->directory, name) < 0)
        error = -errno;
    rc_close(&fd);
    if (!error && !rc_unix_node_at(group, alias, &group->refusing_node))
        error = -ENOENT;
    if (!error)
        group->refusing = alias;
    return error;
}

/* Makes the address lead where it should. What a stranger has put there in the
 * meantime is left alone, until a cutover, as a server's own start would be. */
int rc_unix_place(struct rc_engine *engine, struct rc_unix_group *group)
{
    struct rc_unix_lane *lane = choose(group);
    struct rc_unix_node there;
    (void)engine;
    if (group->one_for_all || !lane)
        return 0;
    bool moved = lane != group->placed, is_there = rc_unix_node_at(group, 0, &there);
    unsigned alias = group->closing ? group->refusing : lane->alias;
    const struct rc_unix_node *node = group->closing ? &group->refusing_node : &lane->node;
    if (is_there && rc_unix_same_node(&there, node)) {
        group->placed = lane;
        return 0;
    }
    if (!alias || (is_there && !moved && !is_ours(group, &there)))
        return 0;
    int error = rc_unix_name_it(group, alias, 0);
    if (error)
        return error;
    group->placed = lane;
    for (struct rc_unix_bound *bound = group->bound; bound; bound = bound->next)
        if (!bound->alias) /* it has lost its name, and its number may become a stranger's */
            bound->node = (struct rc_unix_node){0};
    return 0;
}

/* Gives each lane of the group its second name. */
int rc_unix_share(struct rc_engine *engine, struct rc_unix_group *group)
{
    int first = 0;
    for (struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next) {
        struct rc_unix_node there;
        if (group->one_for_all || lane->alias || !rc_unix_node_at(group, 0, &there) ||
            !rc_unix_same_node(&there, &lane->node))
            continue;
        unsigned alias = ++group->aliases;
        rc_unix_unname(group, alias);
        int error = rc_unix_name_it(group, 0, alias);
        if (!error) {
            lane->alias = alias;
            rc_unix_watch(engine, group, lane);
        }
        first = first ? first : error;
    }
    return first;
}

int rc_unix_resteer(struct rc_engine *engine)
{
    int first = 0;
    for (struct rc_unix_group *group = engine->unixes; group; group = group->next) {
        int error = rc_unix_place(engine, group);
        first = first ? first : error;
    }
    return first;
}

static unsigned count_living(const struct rc_engine *engine)
{
    unsigned count = 0;
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        count += !worker->dead;
    return count;
}

/* New connections are refused; those that wait are served. One worker of several
 * may need what it alone has asked for until its end. */
void rc_unix_close(struct rc_engine *engine)
{
    for (struct rc_unix_group *group = engine->unixes; group; group = group->next)
        if (!group->one_for_all && (group->shared || count_living(engine) <= 1) &&
            make_refusing(group) == 0) {
            group->closing = true;
            (void)rc_unix_place(engine, group);
        }
}

/* ---- putting back ---------------------------------------------------------------- */

/* Its inode tells of a name that goes (IN_ATTRIB: the number of links) or is
 * moved. Without a watch the address comes back when a worker comes or goes. */
void rc_unix_watch(struct rc_engine *engine, struct rc_unix_group *group, struct rc_unix_lane *lane)
{
    char name[NAME_MAX + 1], path[NAME_MAX + 64];
    if (!lane->alias || lane->watch >= 0 || group->late)
        return;
    if (engine->unix_watch.fd < 0) {
        int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (fd >= 0 &&
            rc_source_add(engine->epoll, &engine->unix_watch, RC_SOURCE_UNIX, fd, EPOLLIN) < 0)
            rc_close(&fd);
        if (fd < 0)
            return;
    }
    rc_unix_alias(group, lane->alias, name);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", group->directory, name);
    lane->watch = inotify_add_watch(engine->unix_watch.fd, path, IN_ATTRIB | IN_MOVE_SELF);
}

/* Whether a process of its workers still has the socket. */
static bool is_held(const struct rc_unix_lane *lane)
{
    struct rc_flow one = {.inode = (uint32_t)lane->inode};
    struct rc_flows flows = {.all = &one, .count = 1};
    for (unsigned at = 0; at < lane->count && !one.held; at++)
        if (!lane->members[at]->dead && rc_holders_mark(lane->members[at]->pid, &flows) < 0)
            return true;
    return one.held;
}

/* A name of some lane has gone, or something else about it has changed. */
void rc_unix_noticed(struct rc_engine *engine)
{
    char events[4096];
    for (int most = 0; most < 16; most++)
        if (read(engine->unix_watch.fd, events, sizeof events) <= 0)
            break;
    for (struct rc_unix_group *group = engine->unixes, *next; group; group = next) {
        struct rc_unix_node there;
        struct rc_unix_lane *lane = group->lanes;
        next = group->next;
        if (group->one_for_all || group->late || !lane || rc_unix_node_at(group, 0, &there))
            continue;
        if (group->shared || group->closing || is_held(lane))
            (void)rc_unix_place(engine, group);
        else if (count_living(engine) > 1) /* closed and removed by the one that had it */
            rc_unix_forget(engine, group);
    }
}

/* ---- a worker removes the path ------------------------------------------------------ */

/* The number of the alias that the name is (getsockname(2) may have said it), or 0. */
static unsigned alias_of(const struct rc_unix_group *group, const char *base)
{
    unsigned number = 0;
    char name[NAME_MAX + 1];
    if (*base == '.' && strncmp(base + 1, group->name.base, group->name.length) == 0 &&
        sscanf(base + 1 + group->name.length, ".recluster-%u", &number) == 1)
        rc_unix_alias(group, number, name);
    return number && strcmp(name, base) == 0 ? number : 0;
}

/* Whether a group has such a name, in whatever directory. */
static bool is_named(const struct rc_engine *engine, const char *base)
{
    const struct rc_unix_group *group = engine->unixes;
    while (group && !alias_of(group, base) && strcmp(base, group->name.base) != 0)
        group = group->next;
    return group;
}

/* The group whose address, or alias, that name is, if other workers have asked for it. */
static const struct rc_unix_group *of_siblings(const struct rc_engine *engine,
                                               const struct rc_worker *worker,
                                               const struct rc_unix_name *name, unsigned *alias)
{
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next) {
        *alias = alias_of(group, name->base);
        if (group->directory >= 0 && !group->late && name->device == group->name.device &&
            name->directory == group->name.directory &&
            (*alias || strcmp(name->base, group->name.base) == 0) &&
            rc_unix_asked_by_others(engine, group, worker))
            return group;
    }
    return NULL;
}

/* Servers that start remove the socket that one before them has left. Told to do
 * so by itself (CONTINUE), a worker does it when it comes to run: perhaps when a
 * sibling has bound already, whose socket then has no name and never gets one. So
 * it is done here, in the order of the questions; also when there is nothing any
 * more, since the worker has looked. */
static void remove_left(const struct rc_call *call, int directory, const char *base,
                        struct rc_answer *answer)
{
    struct stat facts;
    if (fstatat(directory, base, &facts, AT_SYMLINK_NOFOLLOW) < 0) {
        answer->pass = errno != ENOENT;
        answer->result = -ENOENT;
    } else if (S_ISSOCK(facts.st_mode) && rc_unix_same_powers(call->pid)) {
        answer->result = unlinkat(directory, base, 0) < 0 ? -errno : 0;
    } else {
        answer->pass = true;
    }
}

/* A worker's unlink(2), or unlinkat(2) without flags. One that would remove the
 * way to its siblings changes nothing, and is told that it has. */
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    struct rc_unix_name name;
    struct rc_unix_node there;
    unsigned alias;
    rc_unix_errands_catch_up(engine);
    answer->pass = false;
    if (rc_unix_errand_blind(engine, call->worker, path))
        return;
    answer->pass = true;
    if (!is_named(engine, base) && (strlen(path) > sizeof((struct sockaddr_un *)0)->sun_path ||
                                    rc_unix_is_other_file(call->pid, at, path)))
        return;
    int directory = rc_unix_find_directory_at(call->pid, at, path, &name);
    if (directory < 0)
        return;
    answer->pass = false;
    const struct rc_unix_group *group = of_siblings(engine, call->worker, &name, &alias);
    /* Looked at once: what was not there may be at the next look, bound by a sibling's child. */
    if (group && !rc_unix_node_at(group, alias, &there))
        answer->result = -ENOENT;
    /* What is there belongs to a lane, or to a bind, of this cluster; or will at once. */
    else if (!group ||
             (!is_ours(group, &there) && !rc_unix_errand_elsewhere(engine, group, call->worker)))
        remove_left(call, directory, base, answer);
    rc_close(&directory);
}
