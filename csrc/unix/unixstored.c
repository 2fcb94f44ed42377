/* unixstored.c - AF_UNIX listeners that outlive the master, as door/stored.c has them for TCP.
 *
 * Owns what is noted with the descriptor of one, and who gets it in the next master. Its
 * socket says neither who has bound it, nor what a relative path began at, nor whether the
 * path still leads to it. So the rights of its binder and the node of its path go with it, as
 * text.
 *
 * Invariants:
 *  - until a worker with just the binder's rights asks for the name, a stored lane is nobody's and
 *    no other lane is told from it: `who` is "", which no worker is;
 *  - a lane is noted only if its binder saw the same files as the master, and is given only to
 *    who does: a path means the same to all three.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool is_unclaimed(const struct rc_unix_lane *lane)
{
    return lane->who && !*lane->who;
}

static uint64_t rights_of(const struct rc_unix_lane *lane)
{
    return !lane->who ? 0 : is_unclaimed(lane) ? lane->rights : rc_unix_rights(lane->who);
}

/* ---- what is kept ------------------------------------------------------------------------ */

/* Those of systemd's sockets it has itself. */
static bool is_kept(const struct rc_unix_lane *lane)
{
    return lane->count && lane->bound && !lane->lost && !lane->removed && (lane->who || lane->ours);
}

int rc_unix_stored(const struct rc_engine *engine, struct rc_stored *out, size_t room, int count)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (is_kept(lane) && (size_t)count++ < room)
            out[count - 1] = (struct rc_stored){.inode = lane->inode, .fd = lane->fd};
    return count;
}

/* What is to be noted with it. -EXDEV: its name means something else to us. */
int rc_unix_stored_note(const struct rc_engine *engine, uint64_t inode, char *text, size_t room)
{
    const struct rc_unix_lane *lane = engine->unixes;
    while (lane && lane->inode != inode)
        lane = lane->next;
    *text = '\0';
    if (!lane)
        return 0; /* TCP: nothing */
    uint64_t rights = rights_of(lane);
    if (lane->who && !rights)
        return -EXDEV;
    (void)snprintf(text, room, "%" PRIx64 "-%" PRIx64 "-%" PRIx64, rights,
                   (uint64_t)lane->node.device, (uint64_t)lane->node.inode);
    return 0;
}

/* False: it is none of ours. Rights 0: it was bound by the master, for all. */
bool rc_unix_stored_read(const char *note, struct rc_unix_note *out)
{
    uint64_t device, inode;
    if (sscanf(note, "%" SCNx64 "-%" SCNx64 "-%" SCNx64, &out->rights, &device, &inode) != 3)
        return false;
    out->node = (struct rc_unix_node){(dev_t)device, (ino_t)inode};
    return true;
}

/* ---- the next master ---------------------------------------------------------------------- */

static int name_of(int fd, struct rc_unix_name *name, struct sockaddr_un *bound, size_t *length)
{
    const struct rc_call here = {.pid = getpid(), .fd = fd};
    errno = EINVAL; /* unless the kernel says more */
    *length = rc_unix_name_at(fd, bound);
    if (!*length)
        return -errno;
    return rc_unix_name_of(&here, AT_FDCWD, bound->sun_path, *length, name) ? 0 : -EINVAL;
}

/* Takes the descriptor on success. The caller has made nobody (rc_nobody). */
int rc_unix_restore(struct rc_engine *engine, int fd, const struct rc_unix_note *note)
{
    struct sockaddr_un bound;
    struct rc_unix_name name;
    size_t length = 0;
    int error = name_of(fd, &name, &bound, &length);
    if (error)
        return error;
    struct rc_unix_lane *lane = rc_unix_lane_new(engine, &name, "", bound.sun_path, length, fd);
    if (!lane)
        return -ENOMEM;
    lane->bound = lane->shared = true;
    lane->rights = note->rights;
    lane->node = note->node;
    error = rc_unix_join(lane, engine->unowned);
    if (error) {
        lane->fd = -1; /* the caller's */
        rc_unix_lane_free(engine, lane);
        return error;
    }
    engine->expects_paths |= bound.sun_path[0] != '\0';
    return 0;
}

static bool is_meant(struct rc_unix_lane *lane, const struct rc_unix_name *name,
                     const struct rc_unix_who *who)
{
    if (lane->rights != rc_unix_rights(who->text))
        return false;
    bool said = rc_unix_is_said(lane, name);
    if (!rc_unix_is_path(name->bytes) || (!said && (!who->like_us || !lane->node.inode)))
        return said;
    enum rc_unix_leads leads = rc_unix_leads(name->bytes, who->like_us, lane->fd, &lane->node);
    if (said && (leads == RC_LEADS_NOWHERE || leads == RC_LEADS_ELSEWHERE))
        lane->lost = true;
    return leads == RC_LEADS_THERE || (said && leads == RC_LEADS_UNKNOWN);
}

static void take(struct rc_unix_lane *lane, const struct rc_unix_name *name, const char *who)
{
    char *new_who = strdup(who), *new_name = malloc(name->length + 1);
    if (!new_who || !new_name) { /* then the kernel answers */
        free(new_who);
        free(new_name);
        return;
    }
    memcpy(new_name, name->bytes, name->length);
    new_name[name->length] = '\0';
    free(lane->who);
    free(lane->name);
    lane->who = new_who;
    lane->name = new_name;
    lane->length = name->length;
}

/* Before anything is decided of a worker's call: whose name it says may be a stored one. */
void rc_unix_claim_stored(struct rc_engine *engine, const struct rc_call *call,
                          const struct rc_unix_name *name)
{
    struct rc_unix_who who;
    bool known = false;
    for (struct rc_unix_lane *lane = engine->unixes, *next; lane; lane = next) {
        next = lane->next;
        if (!is_unclaimed(lane))
            continue;
        if (!known && !rc_unix_who(call, &who))
            return;
        known = true;
        if (is_meant(lane, name, &who)) {
            take(lane, name, who.text);
            return;
        }
        if (lane->lost) /* the name went while nobody was there: nobody could be served in it */
            rc_unix_lane_free(engine, lane);
    }
}
