/* polling.c - when it is worth while to look at all workers again and again.
 *
 * Owns: the beginning and the end of polling. A worker that is at work answers a
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
static uint64_t count(struct rc_polling *polling, int64_t now)
{
    uint64_t before = polling->opened;
    int64_t span = now - polling->counted_at;
    polling->opened = opened();
    polling->counted_at = now;
    return span > 0 ? (polling->opened - before) * 1000000 / (uint64_t)span : 0;
}

void rc_polling_begin(struct rc_engine *engine, int64_t now)
{
    struct rc_polling *polling = &engine->polling;
    if (!rc_polling_on(engine, now)) {
        if (polling->most && now - polling->counted_at < COUNT_US)
            return;
        uint64_t rate = count(polling, now);
        if (polling->most && rate > polling->most)
            return;
        polling->most = 0;
        polling->stirred_at = now;
    }
    polling->until = now + LASTS_US;
}

bool rc_polling_on(const struct rc_engine *engine, int64_t now)
{
    return now < engine->polling.until;
}

bool rc_polling_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now)
{
    struct rc_polling *polling = &engine->polling;
    if (!rc_polling_on(engine, now))
        return false;
    if (now - polling->stirred_at >= STILL_US) {
        polling->until = 0;
        return false;
    }
    if (now - polling->counted_at < COUNT_US)
        return true;
    uint64_t most = (uint64_t)lanes * FAST;
    if (count(polling, now) <= most)
        return true;
    polling->until = 0;
    polling->most = most;
    return false;
}
