/* unixlane.c - the lanes of AF_UNIX names: one for each name, and who has asked for it.
 *
 * Owns the list. The kernel has no reuseport for them: a name leads to one socket. So the
 * workers of all generations accept from one queue, which lives until the last of them
 * is gone. Nothing is ever done to the name itself but by a worker.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *copy_of(const void *from, size_t length)
{
    char *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, from, length);
        copy[length] = '\0';
    }
    return copy;
}

/* Takes the descriptor on success. NULL: no memory. */
struct rc_unix_lane *rc_unix_lane_new(struct rc_engine *engine, const struct rc_unix_name *name,
                                      const char *who, const char *given, size_t length, int fd)
{
    struct rc_unix_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->name = copy_of(name->bytes, name->length);
    lane->who = who ? copy_of(who, strlen(who)) : NULL;
    if (!lane->name || (who && !lane->who)) {
        free(lane->name);
        free(lane->who);
        free(lane);
        return NULL;
    }
    lane->length = name->length;
    lane->given_length = length < sizeof lane->given ? length : sizeof lane->given - 1;
    memcpy(lane->given, given, lane->given_length);
    int shown = snprintf(lane->text, sizeof lane->text, "unix:");
    for (size_t at = 0; at < lane->given_length; at++) /* as the kernel shows them */
        lane->text[shown++] = given[at] ? given[at] : '@';
    lane->fd = fd;
    lane->inode = rc_socket_inode(fd);
    lane->directory = -1;
    lane->next = engine->unixes;
    engine->unixes = lane;
    return lane;
}

/* Of a path that the master has bound itself, in a directory that it has kept. */
static void remove_ours(struct rc_unix_lane *lane)
{
    const char *slash = strrchr(lane->name, '/');
    struct stat there;
    if (lane->directory < 0)
        return;
    if (slash && fstatat(lane->directory, slash + 1, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        there.st_dev == lane->node.device && there.st_ino == lane->node.inode)
        (void)unlinkat(lane->directory, slash + 1, 0);
    rc_close(&lane->directory);
}

void rc_unix_lane_free(struct rc_engine *engine, struct rc_unix_lane *lane)
{
    struct rc_unix_lane **link = &engine->unixes;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    while (lane->asks)
        rc_unix_unask(lane, lane->asks->worker);
    for (struct rc_unix_turn *turn = engine->turns; turn; turn = turn->next)
        if (turn->lane == lane)
            turn->lane = NULL;
    remove_ours(lane);
    rc_close(&lane->fd);
    free(lane->name);
    free(lane->who);
    free(lane->members);
    rc_bury(engine, lane);
}

/* Nobody has it any more: what was bound and never listened leaves no trace. */
void rc_unix_lane_tidy(struct rc_engine *engine, struct rc_unix_lane *lane)
{
    if (!lane->count && !lane->asks)
        rc_unix_lane_free(engine, lane);
}

/* The one that a worker's socket is, or will be at its listen. */
struct rc_unix_lane *rc_unix_lane_of(struct rc_engine *engine, const struct rc_worker *worker,
                                     uint64_t inode)
{
    for (struct rc_unix_lane *lane = inode ? engine->unixes : NULL; lane; lane = lane->next)
        if (lane->inode == inode)
            return lane;
    for (struct rc_unix_lane *lane = inode ? engine->unixes : NULL; lane; lane = lane->next)
        for (const struct rc_unix_ask *ask = lane->asks; ask; ask = ask->next)
            if (ask->inode == inode && ask->worker == worker)
                return lane;
    return NULL;
}

bool rc_unix_is_said(const struct rc_unix_lane *lane, const struct rc_unix_name *name)
{
    return lane->length == name->length && memcmp(lane->name, name->bytes, name->length) == 0;
}

/* Whether any lane's name ends as this one does: a quick answer for a worker that removes
 * many files. */
bool rc_unix_is_base(const struct rc_engine *engine, const struct rc_unix_name *name)
{
    const char *base = strrchr(name->bytes, '/');
    for (const struct rc_unix_lane *lane = engine->unixes; lane && base; lane = lane->next) {
        const char *other = lane->lost ? NULL : strrchr(lane->name, '/');
        if (other && strcmp(base, other) == 0)
            return true;
    }
    return false;
}

static bool is_for(const struct rc_unix_lane *lane, const struct rc_call *call,
                   const struct rc_unix_who *who)
{
    if (!lane->who)
        return !rc_unix_is_path(lane->name) || rc_unix_sees_as_we(call);
    return strcmp(lane->who, who->text) == 0;
}

/* The lane of that name, for who may do what its binder might: by the text or, where the
 * master may look, by what the path leads to. */
struct rc_unix_lane *rc_unix_find(struct rc_engine *engine, const struct rc_call *call,
                                  const struct rc_unix_name *name, const struct rc_unix_who *who)
{
    struct rc_unix_node there = {0};
    for (struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (!lane->lost && rc_unix_is_said(lane, name) && is_for(lane, call, who))
            return lane;
    if (!who->like_us || !engine->unixes || !rc_unix_is_path(name->bytes))
        return NULL;
    (void)rc_unix_leads(name->bytes, true, -1, &there);
    for (struct rc_unix_lane *lane = there.inode ? engine->unixes : NULL; lane; lane = lane->next)
        if (!lane->lost && lane->node.inode == there.inode && lane->node.device == there.device &&
            is_for(lane, call, who))
            return lane;
    return NULL;
}

/* Another socket has the name now. Who still listens on one before is heard by nobody
 * that comes: as deaf as one that has closed it. */
void rc_unix_lose_older(struct rc_engine *engine, struct rc_unix_lane *lane,
                        const struct rc_worker *by)
{
    for (struct rc_unix_lane *old = lane->next; old; old = old->next) {
        if (old->lost || old->length != lane->length || !old->who || !lane->who ||
            memcmp(old->name, lane->name, lane->length) != 0 || strcmp(old->who, lane->who) != 0)
            continue;
        old->lost = true;
        for (unsigned at = 0; at < old->count; at++)
            if (!old->members[at]->dead && old->members[at] != by &&
                !old->members[at]->shared_proof.look_at) /* else when it is ready */
                rc_emit_place(engine, RC_EVENT_DEAF, old->members[at]->id, 0, old->text);
    }
}

/* ---- who has it ------------------------------------------------------------------------ */

bool rc_unix_is_member(const struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    for (unsigned at = 0; at < lane->count; at++)
        if (lane->members[at] == worker)
            return true;
    return false;
}

int rc_unix_join(struct rc_unix_lane *lane, struct rc_worker *worker)
{
    if (rc_unix_is_member(lane, worker))
        return 0;
    if (lane->count == lane->room) {
        unsigned room = lane->room ? lane->room * 2 : 4;
        struct rc_worker **members = realloc(lane->members, room * sizeof *members);
        if (!members)
            return -ENOMEM;
        lane->members = members;
        lane->room = room;
    }
    lane->members[lane->count++] = worker;
    return 0;
}

void rc_unix_part(struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    for (unsigned at = lane->count; at-- > 0;)
        if (lane->members[at] == worker)
            lane->members[at] = lane->members[--lane->count];
}

/* Known until its worker exits, as in pending.c, and as there not without end. */
int rc_unix_ask(struct rc_unix_lane *lane, struct rc_worker *worker, uint64_t inode)
{
    struct rc_unix_ask **link = &lane->asks, **oldest = NULL;
    unsigned count = 0;
    for (; *link; link = &(*link)->next) {
        if ((*link)->worker != worker)
            continue;
        if ((*link)->inode == inode)
            return 0;
        oldest = link;
        count++;
    }
    struct rc_unix_ask *ask = count < RC_PENDING_MAX ? calloc(1, sizeof *ask) : *oldest;
    if (!ask)
        return -ENOMEM;
    if (count >= RC_PENDING_MAX)
        *oldest = ask->next;
    *ask = (struct rc_unix_ask){.next = lane->asks, .worker = worker, .inode = inode};
    lane->asks = ask;
    return 0;
}

void rc_unix_unask(struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    for (struct rc_unix_ask **link = &lane->asks; *link;) {
        struct rc_unix_ask *ask = *link;
        if (ask->worker != worker) {
            link = &ask->next;
            continue;
        }
        *link = ask->next;
        free(ask);
    }
}

/* Whether the name is not the worker's alone: another that lives has asked for it, or it
 * has not itself, and a dead one's queue waits there. */
bool rc_unix_has_others(const struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    bool dead = false, own = rc_unix_is_member(lane, worker);
    if (!lane->who)
        return true;
    for (unsigned at = 0; at < lane->count; at++) {
        const struct rc_worker *member = lane->members[at];
        if (member != worker && !member->dead)
            return true;
        dead |= member != worker;
    }
    for (const struct rc_unix_ask *ask = lane->asks; ask; ask = ask->next) {
        if (ask->worker != worker && !ask->worker->dead)
            return true;
        own |= ask->worker == worker;
    }
    return dead && !own;
}

unsigned rc_unix_count_own(const struct rc_engine *engine, const struct rc_worker *worker)
{
    unsigned count = 0;
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next) {
        bool has = rc_unix_is_member(lane, worker);
        for (const struct rc_unix_ask *ask = lane->asks; ask && !has; ask = ask->next)
            has = ask->worker == worker;
        count += !lane->shared && has;
    }
    return count;
}
