/* unixes.c - AF_UNIX listeners (and sockets that all workers share), written down and taken over.
 *
 * Owns both ends of that record. The kernel knows no order among them; the list has its own, the
 * newest first, and keeps it.
 */
#include "unix/unixlane.h"

#include "carry/carry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A worker whose socket of that inode has the lane in its place, or will have. */
struct ask {
    uint64_t worker, inode;
};

static struct rc_bytes text_of(const char *text)
{
    return (struct rc_bytes){.at = (char *)text, .length = text ? strlen(text) : 0};
}

static void write_one(struct rc_carry_text *text, const struct rc_unix_lane *lane)
{
    struct rc_carried record = {.kind = RC_CARRIED_UNIX};
    size_t asked = 0;
    for (const struct rc_unix_ask *one = lane->asks; one; one = one->next)
        asked++;
    uint32_t *members = calloc(lane->count + 1, sizeof *members);
    struct ask *asks = calloc(asked + 1, sizeof *asks);
    text->failed |= !members || !asks;
    for (unsigned at = 0; members && at < lane->count; at++)
        members[at] = lane->members[at]->id;
    size_t at_ask = asked;
    for (const struct rc_unix_ask *one = asks ? lane->asks : NULL; one; one = one->next)
        asks[--at_ask] = (struct ask){one->worker->id, one->inode}; /* the last one goes first */
    record.is.local = (struct rc_carried_unix){
        .name = {.at = lane->name, .length = lane->length},
        .owned = lane->who != NULL,
        .who = text_of(lane->who),
        .text = text_of(lane->text),
        .given = {.at = (char *)lane->given, .length = lane->given_length},
        .fd = lane->fd,
        .device = (int64_t)lane->node.device,
        .inode = (int64_t)lane->node.inode,
        .lost = lane->lost,
        .removed = lane->removed,
        .shared = lane->shared,
        .ours = lane->ours,
        .rights = (int64_t)lane->rights,
        .backlog = lane->backlog,
        .directory = lane->directory,
        .asks = {.at = (char *)asks, .length = asked * sizeof *asks},
        .members = {.at = (char *)members, .length = lane->count * sizeof *members},
    };
    if (!text->failed)
        rc_carry_write(text, &record);
    free(members);
    free(asks);
}

/* The oldest first: each goes before those that are there. */
void rc_carry_unixes(struct rc_carry_text *text, const struct rc_unix_lane *newest)
{
    if (!newest)
        return;
    rc_carry_unixes(text, newest->next);
    write_one(text, newest);
}

const char *rc_carry_unix_hinders(const struct rc_engine *engine)
{
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->shared_proof.look_at || worker->shared_proof.tell_at)
            return "it is found out whether a worker accepts";
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (!lane->bound)
            return "a worker binds a path";
    return NULL;
}

void rc_carry_unix_fds(const struct rc_engine *engine, void (*keep)(int fd, bool on), bool on)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next) {
        keep(lane->fd, on);
        keep(lane->directory, on);
    }
}

bool rc_carried_unix_fits(const struct rc_carried_unix *record)
{
    return record->name.length && record->name.length < sizeof((struct rc_unix_name *)0)->bytes &&
           record->text.length < sizeof((struct rc_unix_lane *)0)->text &&
           record->given.length < sizeof((struct rc_unix_lane *)0)->given &&
           record->asks.length % sizeof(struct ask) == 0 &&
           record->members.length % sizeof(uint32_t) == 0;
}

static struct rc_worker *holder(struct rc_engine *engine, uint64_t id)
{
    return id == RC_NOBODY ? rc_nobody(engine) : rc_find(engine, (uint32_t)id);
}

static int join(struct rc_engine *engine, struct rc_unix_lane *lane,
                const struct rc_carried_unix *record)
{
    int error = 0;
    for (size_t at = 0; at < record->members.length / sizeof(uint32_t) && !error; at++) {
        uint32_t id;
        memcpy(&id, record->members.at + at * sizeof id, sizeof id);
        struct rc_worker *worker = holder(engine, id);
        error = worker ? rc_unix_join(lane, worker) : -ESRCH;
    }
    for (size_t at = 0; at < record->asks.length / sizeof(struct ask) && !error; at++) {
        struct ask one;
        memcpy(&one, record->asks.at + at * sizeof one, sizeof one);
        struct rc_worker *worker = holder(engine, one.worker);
        error = worker ? rc_unix_ask(lane, worker, one.inode) : -ESRCH;
    }
    return error;
}

/* Its descriptors are to be closed at an exec already. */
int rc_carried_unix_take(struct rc_engine *engine, const struct rc_carried_unix *record)
{
    struct rc_unix_name *name = calloc(1, sizeof *name);
    char *who = calloc(1, record->who.length + 1);
    struct rc_unix_lane *lane = NULL;
    if (name && who) {
        memcpy(name->bytes, record->name.at, name->length = record->name.length);
        memcpy(who, record->who.at, record->who.length);
        lane = rc_unix_lane_new(engine, name, record->owned ? who : NULL, record->given.at,
                                record->given.length, (int)record->fd);
    }
    free(name);
    free(who);
    if (!lane)
        return -ENOMEM;
    memset(lane->text, 0, sizeof lane->text);
    memcpy(lane->text, record->text.at, record->text.length);
    lane->node =
        (struct rc_unix_node){.device = (dev_t)record->device, .inode = (ino_t)record->inode};
    lane->bound = true;
    lane->lost = record->lost;
    lane->removed = record->removed;
    lane->shared = record->shared;
    lane->ours = record->ours;
    lane->rights = (uint64_t)record->rights;
    lane->backlog = (unsigned)record->backlog;
    lane->directory = (int)record->directory;
    return join(engine, lane, record);
}
