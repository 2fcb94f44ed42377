/* identity.c - who workers become, where that is not who the master is.
 *
 * Owns it. The master stays what it was: it starts them, signals them and looks at their
 * sockets.
 *
 * Invariant: a worker that has become another user than root has no capability left, and
 * does not get one back: not by what was ambient, not by an exec of its own program.
 */
#include "internal.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Before the first worker. */
int rc_worker_identity(rc_engine *engine, const struct rc_identity *wanted)
{
    struct rc_become *become = &engine->become;
    gid_t *groups = calloc(wanted->count + 1, sizeof *groups);
    if (!groups)
        return -ENOMEM;
    for (size_t at = 0; at < wanted->count; at++)
        groups[at] = wanted->groups[at];
    free(become->groups);
    *become = (struct rc_become){.changes = wanted->changes,
                                 .uid = wanted->uid,
                                 .gid = wanted->gid,
                                 .groups = groups,
                                 .count = wanted->count,
                                 .masks = wanted->umask >= 0,
                                 .umask = (mode_t)wanted->umask};
    return 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof none);
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* In the child, before any of the program's code. By system calls and not the C library's
 * functions, which have every thread of the process join in, and take locks for that. */
int rc_become(const struct rc_engine *engine)
{
    const struct rc_become *become = &engine->become;
    if (become->masks)
        (void)umask(become->umask);
    if (!become->changes)
        return 0;
    bool same = geteuid() == become->uid && getegid() == become->gid;
    if (!same && (syscall(SYS_setgroups, become->count, become->groups) < 0 ||
                  syscall(SYS_setresgid, become->gid, become->gid, become->gid) < 0 ||
                  syscall(SYS_setresuid, become->uid, become->uid, become->uid) < 0))
        return -errno;
    int error = become->uid ? drop_capabilities() : 0;
    /* As after an exec by that user: else its own /proc/self would be root's. */
    (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    /* Another user's credentials have taken it back. */
    if (engine->flags & RC_SUBREAPER)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return error;
}
