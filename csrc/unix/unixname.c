/* unixname.c - names of AF_UNIX sockets: what a process means by one, and where it leads.
 *
 * Owns nothing. Invariants:
 *  - nothing is followed with rights that the process has not: a name is its text and
 *    the links of /proc (read, not followed); a path is looked at only for a process that
 *    may do just what the master may.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/stat.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0) /* linux/un.h */
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

bool rc_unix_is_path(const char *name)
{
    return *name == '/';
}

/* How many bytes of that are a name; 0: it has none. */
size_t rc_unix_name_length(const struct sockaddr_un *address, socklen_t length)
{
    const socklen_t before = offsetof(struct sockaddr_un, sun_path);
    if (length <= before || length > sizeof *address)
        return 0;
    return address->sun_path[0] ? strnlen(address->sun_path, length - before) : length - before;
}

/* The name that a socket is bound to, and its length. One more than fits is told of a path
 * that leaves no room for its zero. */
size_t rc_unix_name_at(int fd, struct sockaddr_un *out)
{
    socklen_t length = sizeof *out;
    memset(out, 0, sizeof *out);
    if (getsockname(fd, (struct sockaddr *)out, &length) < 0)
        return 0;
    return rc_unix_name_length(out, length < sizeof *out ? length : sizeof *out);
}

/* ---- what a process means ------------------------------------------------------ */

/* The thread that called, where the door knows it: rights are a thread's. */
static pid_t caller_of(const struct rc_call *call)
{
    return call->thread ? call->thread : call->pid;
}

static ssize_t link_of(pid_t pid, const char *which, char *out, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    ssize_t length = readlink(path, out, room);
    return length < 0 || (size_t)length == room ? -1 : length;
}

/* False: the kernel knows best what is meant. */
bool rc_unix_name_of(const struct rc_call *call, int at, const char *given, size_t length,
                     struct rc_unix_name *out)
{
    uint64_t network = 0;
    socklen_t size = sizeof network;
    out->length = 0;
    if (!length)
        return false;
    if (!given[0]) {
        (void)getsockopt(call->fd, SOL_SOCKET, SO_NETNS_COOKIE, &network, &size);
        out->length = (size_t)snprintf(out->bytes, 64, "@%llx:", (unsigned long long)network);
        given++;
        length--;
    } else if (*given != '/') {
        char which[32] = "cwd";
        if (at != AT_FDCWD)
            snprintf(which, sizeof which, "fd/%d", at);
        ssize_t start = link_of(caller_of(call), which, out->bytes, PATH_MAX - 1);
        if (start <= 0 || out->bytes[0] != '/')
            return false;
        out->length = (size_t)start;
        out->bytes[out->length++] = '/';
    }
    if (length >= sizeof out->bytes - out->length)
        return false;
    memcpy(out->bytes + out->length, given, length);
    out->length += length;
    out->bytes[out->length] = '\0';
    /* There the same text is another file for each process. */
    return strncmp(out->bytes, "/proc/", 6) != 0 && strncmp(out->bytes, "/dev/fd/", 8) != 0;
}

/* The lines of /proc/PID/status that say what it may do. */
static size_t rights_of(const char *process, char *out, size_t room)
{
    static const char *const wanted[] = {"Uid:", "Gid:", "Groups:", "CapEff:"};
    char path[64], text[RC_UNIX_WHO_MAX];
    size_t got = 0, length = 0;
    ssize_t some;
    snprintf(path, sizeof path, "/proc/%s/status", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    while (got < sizeof text - 1 && (some = read(fd, text + got, sizeof text - 1 - got)) > 0)
        got += (size_t)some;
    close(fd);
    text[got] = '\0';
    for (size_t at = 0; at < sizeof wanted / sizeof wanted[0]; at++) {
        const char *line = strstr(text, wanted[at]), *end = line ? strchr(line, '\n') : NULL;
        if (!end || (size_t)(end - line) + 1 >= room - length)
            return 0; /* more groups than fit */
        memcpy(out + length, line, (size_t)(end - line) + 1);
        length += (size_t)(end - line) + 1;
    }
    out[length] = '\0';
    return length;
}

static bool who_is(const char *process, char out[RC_UNIX_WHO_MAX])
{
    static const char *const seen[] = {"root", "ns/mnt", "ns/user"};
    size_t length = rights_of(process, out, RC_UNIX_WHO_MAX - PATH_MAX);
    for (size_t at = 0; at < sizeof seen / sizeof seen[0] && length; at++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%s/%s", process, seen[at]);
        ssize_t some = readlink(path, out + length, RC_UNIX_WHO_MAX - length - 2);
        if (some < 0 && (errno != ENOENT || strcmp(seen[at], "ns/user") != 0))
            return false; /* a kernel may have no user namespaces */
        length += some > 0 ? (size_t)some : 0;
        if (length >= RC_UNIX_WHO_MAX - 3)
            return false;
        out[length++] = '\n';
    }
    out[length] = '\0';
    return length > 0;
}

/* Of his lines one number (FNV-1a), without those of what he sees; that has to be what the
 * master sees. 0: it is not. */
uint64_t rc_unix_rights(const char *who)
{
    char ours[RC_UNIX_WHO_MAX];
    const char *theirs = strstr(who, "CapEff:"), *here = NULL;
    uint64_t sum = 0xcbf29ce484222325u;
    theirs = theirs ? strchr(theirs, '\n') : NULL;
    if (theirs && who_is("thread-self", ours))
        here = strchr(strstr(ours, "CapEff:"), '\n');
    if (!here || strcmp(theirs, here) != 0)
        return 0;
    for (const char *at = who; at < theirs; at++)
        sum = (sum ^ (unsigned char)*at) * 0x100000001b3u;
    return sum ? sum : 1;
}

/* Whether the master may do just what he may, and sees the same files. */
bool rc_unix_like_us(const char *who)
{
    char ours[RC_UNIX_WHO_MAX];
    return who && who_is("thread-self", ours) && strcmp(ours, who) == 0;
}

/* False where it cannot be known. */
bool rc_unix_who(const struct rc_call *call, struct rc_unix_who *out)
{
    char process[24];
    snprintf(process, sizeof process, "%d", (int)caller_of(call));
    if (!who_is(process, out->text))
        return false;
    out->like_us = rc_unix_like_us(out->text);
    return true;
}

bool rc_unix_sees_as_we(const struct rc_call *call)
{
    static const char *const seen[] = {"root", "ns/mnt"};
    for (size_t at = 0; at < sizeof seen / sizeof seen[0]; at++) {
        char theirs[PATH_MAX], ours[PATH_MAX];
        ssize_t one = link_of(caller_of(call), seen[at], theirs, sizeof theirs);
        ssize_t two = link_of(getpid(), seen[at], ours, sizeof ours);
        if (one <= 0 || one != two || memcmp(theirs, ours, (size_t)one) != 0)
            return false;
    }
    return true;
}

/* ---- where it leads, for a process like us ----------------------------------------- */

static bool facts_of(int fd, struct statx *facts)
{
    memset(facts, 0, sizeof *facts);
    return syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
                   STATX_MODE | STATX_INO | STATX_NLINK | STATX_BTIME, facts) == 0;
}

/* A directory that only the worker's user may enter, made after the worker: what
 * tempfile.mkdtemp makes. What listens there (a Manager of multiprocessing) is
 * for its own processes. */
bool rc_unix_is_private(const struct rc_worker *worker, const char *path)
{
    struct statx facts;
    int fd = rc_walk_folder(path);
    if (fd < 0)
        return false;
    bool known = facts_of(fd, &facts);
    rc_close(&fd);
    if (!known || !(facts.stx_mask & STATX_BTIME) || (facts.stx_mode & 077))
        return false;
    return facts.stx_btime.tv_sec > worker->born.tv_sec ||
           (facts.stx_btime.tv_sec == worker->born.tv_sec &&
            facts.stx_btime.tv_nsec > worker->born.tv_nsec);
}

/* What the socket's own name leads to, without a path: with CAP_NET_ADMIN the kernel
 * gives the file that the socket was bound to. */
static enum rc_unix_leads ask_socket(int socket, struct rc_unix_node *node)
{
    struct statx facts;
    int fd = ioctl(socket, SIOCUNIXFILE, 0);
    if (fd < 0)
        return RC_LEADS_UNKNOWN;
    bool known = facts_of(fd, &facts);
    rc_close(&fd);
    if (known)
        *node =
            (struct rc_unix_node){makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino};
    return !known ? RC_LEADS_UNKNOWN : facts.stx_nlink ? RC_LEADS_THERE : RC_LEADS_NOWHERE;
}

/* Whether the path still leads to that node. One that is not known yet is filled in. */
enum rc_unix_leads rc_unix_leads(const char *path, bool like_us, int socket,
                                 struct rc_unix_node *node)
{
    struct statx facts;
    struct rc_unix_node there = {0};
    enum rc_unix_leads leads = RC_LEADS_UNKNOWN;
    if (!rc_unix_is_path(path))
        return RC_LEADS_THERE;
    if (!like_us || !node->inode)
        leads = ask_socket(socket, &there);
    if (!node->inode)
        *node = there;
    if (!like_us)
        return leads;
    int fd = rc_walk_there(path);
    if (fd == -ENOENT || fd == -ENOTDIR)
        return RC_LEADS_NOWHERE;
    if (fd < 0)
        return RC_LEADS_UNKNOWN;
    bool known = facts_of(fd, &facts);
    rc_close(&fd);
    if (!known)
        return RC_LEADS_UNKNOWN;
    there = (struct rc_unix_node){makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino};
    if (!node->inode && S_ISSOCK(facts.stx_mode))
        *node = there;
    return there.device == node->device && there.inode == node->inode ? RC_LEADS_THERE
                                                                      : RC_LEADS_ELSEWHERE;
}
