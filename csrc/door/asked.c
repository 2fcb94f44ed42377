/* asked.c - calls at the door that the master has received and not answered yet.
 *
 * Owns: their places, in memory that the guard has too. Whoever is killed between the two
 * leaves a caller that waits for ever: nobody can receive its call again, but the guard, which
 * has the door, can answer it, and needs its number for that.
 *
 * Invariants:
 *  - the kernel itself writes the number there, so there is no instant between;
 *  - the memory is the guard's and ours: no worker that is forked has it;
 *  - nothing is read from it but numbers, to let calls pass.
 */
#include "internal.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>

enum { PLACES = 1024 };
struct rc_asked {
    struct seccomp_notif place[PLACES]; /* id 0: free */
};

int rc_asked_new(struct rc_asked **out)
{
    void *memory = mmap(NULL, sizeof(struct rc_asked), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    if (madvise(memory, sizeof(struct rc_asked), MADV_DONTFORK) < 0) {
        int error = -errno;
        (void)munmap(memory, sizeof(struct rc_asked));
        return error;
    }
    *out = memory;
    return 0;
}

void rc_asked_free(struct rc_asked *asked)
{
    if (asked)
        (void)munmap(asked, sizeof *asked);
}

/* Whether the child that is forked next has it. */
bool rc_asked_share(struct rc_asked *asked, bool on)
{
    return asked && madvise(asked, sizeof *asked, on ? MADV_DOFORK : MADV_DONTFORK) == 0;
}

/* Where to receive the next one, as the kernel wants it: all zeroes. NULL: there is no room. */
struct seccomp_notif *rc_asked_place(struct rc_asked *asked)
{
    for (unsigned at = 0; asked && at < PLACES; at++)
        if (!asked->place[at].id)
            return memset(&asked->place[at], 0, sizeof asked->place[at]);
    return NULL;
}

void rc_asked_done(struct rc_asked *asked, uint64_t id)
{
    for (unsigned at = 0; asked && at < PLACES; at++)
        if (asked->place[at].id == id) {
            asked->place[at].id = 0;
            return;
        }
}

/* In the guard: whoever of them waits at that door goes on. */
void rc_asked_pass(const struct rc_asked *asked, int door)
{
    for (unsigned at = 0; asked && at < PLACES; at++)
        if (asked->place[at].id)
            rc_notify_reply(NULL, door, asked->place[at].id, true, 0);
}
