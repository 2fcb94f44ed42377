/* vigil.c - when it is worth while to look at all workers again and again.
 *
 * Owns: the beginning and the end of a vigil. A worker that is at work answers a
 * new connection late; which one is cannot be told in advance, and the kernel
 * wakes nobody when a connection is accepted. So while requests are long enough
 * to matter, the lanes are looked at every millisecond (congestion.c).
 *
 * It begins with evidence: a connection that waited while another worker would
 * have taken it. It ends when there was no evidence for a second, when nothing
 * happens, and when connections come so fast that requests must be short: then
 * any worker will do, and the looks would cost more than they bring. After that,
 * evidence makes it count the connections, and begin again when they come slower.
 */
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LASTS_US = 1000000,
    STILL_US = 200000, /* no worker went to work for this long: nothing happens */
    COUNT_US = 100000, /* between two counts of the connections */
    FAST = 300,        /* connections per second and lane: requests are short */
};

/* Connections that listeners of this network namespace have been given (proc(5),
 * RFC 1213 tcpPassiveOpens); 0 where it cannot be read. */
static uint64_t opened(void)
{
    static const unsigned field = 6; /* of the second "Tcp:" line */
    char text[4096];
    int fd = open("/proc/net/snmp", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    rc_close(&fd);
    text[length < 0 ? 0 : length] = '\0';
    const char *at = strstr(text, "\nTcp: ");
    at = at ? strstr(at + 1, "\nTcp: ") : NULL;
    for (unsigned skip = 0; at && skip < field; skip++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    return at ? strtoull(at, NULL, 10) : 0;
}

/* Connections per second since the last count. */
static uint64_t count(struct rc_vigil *vigil, int64_t now)
{
    uint64_t before = vigil->opened;
    int64_t span = now - vigil->counted_at;
    vigil->opened = opened();
    vigil->counted_at = now;
    return span > 0 ? (vigil->opened - before) * 1000000 / (uint64_t)span : 0;
}

void rc_vigil_begin(struct rc_engine *engine, int64_t now)
{
    struct rc_vigil *vigil = &engine->vigil;
    if (!rc_vigil_on(engine, now)) {
        if (vigil->most && now - vigil->counted_at < COUNT_US)
            return;
        uint64_t rate = count(vigil, now);
        if (vigil->most && rate > vigil->most)
            return;
        vigil->most = 0;
        vigil->stirred_at = now;
    }
    vigil->until = now + LASTS_US;
}

bool rc_vigil_on(const struct rc_engine *engine, int64_t now)
{
    return now < engine->vigil.until;
}

bool rc_vigil_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now)
{
    struct rc_vigil *vigil = &engine->vigil;
    if (!rc_vigil_on(engine, now))
        return false;
    if (now - vigil->stirred_at >= STILL_US) {
        vigil->until = 0;
        return false;
    }
    if (now - vigil->counted_at < COUNT_US)
        return true;
    uint64_t most = (uint64_t)lanes * FAST;
    if (count(vigil, now) <= most)
        return true;
    vigil->until = 0;
    vigil->most = most;
    return false;
}
