/* free.c - who is free, where the kernel may not count: what `auto` has without privilege.
 *
 * Owns: when workers are looked at, and what is seen of each: whether it is at work, and for how
 * long (a new connection would wait), and whether it has more connections open than the others.
 * Does not own its queue (congestion.c), nor the choice (choosing.c). docs/internals/balancing.md
 * has what each part buys; bench/ablation.py measures it.
 *
 * At work: the kernel wakes nobody when a connection is accepted. So while requests are long
 * enough to matter, all workers are looked at every millisecond. That begins with evidence: a
 * connection that waited while another worker would have taken it. It ends when there was no
 * evidence for a second, when nothing happens, and when connections come so fast that requests
 * must be short: then any worker will do, and the looks would cost more than they bring. After
 * that, evidence makes it count the connections, and begin again when they come slower.
 *
 * Only the leader's main thread is looked at, and it is believed to be the one that accepts only
 * after it was seen waiting: a server that accepts in other threads or processes stays
 * RC_ACTIVITY_UNKNOWN, or always seems to wait, and then its queue alone tells.
 *
 * Open: what a program has beside connections, all its workers have, so descriptors are counted.
 * A worker is crowded when it has more than the others by what chance would not make of even
 * shares; then the others are preferred until it is level with them. And a group is flooded while
 * connections come, and stay, faster than that can be seen.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The looks. */
enum {
    SAMPLE_US = 1000,         /* between two at a worker: a light request takes about as long; */
    TAKING_SAMPLE_US = 500,   /* at one that has just gone to work: soon it is free; */
    BLOCKED_SAMPLE_US = 4000, /* at one that has been for long: likely it stays so, */
    TAKES_US = 2500,          /* and "just" is for less than this: light requests are over, */
    BLOCKS_US = 10000,        /* "long" for more: also those that had to wait for a CPU */
};

/* Until when. */
enum {
    LASTS_US = 1000000, /* after evidence: some requests may block longer than others come */
    STILL_US = 200000,  /* no worker went to work for this long: nothing happens */
    COUNT_US = 100000,  /* between two counts: at FAST, 30 for each lane, so chance is small */
    FAST = 300,         /* a second and lane: requests are short (with looks 0.91 of the rate) */
};

/* What is open. */
enum {
    SLACK = 2,              /* more than the mean: one or two are chance, */
    PART = 8,               /* and so is a part of what the mean is above the least */
    FLOOD_LEAST = 4,        /* since the last look, where workers are few: less is usual */
    CROWD_US = 2500,        /* between two looks, at least; */
    CROWD_COST = 100,       /* so many times what one costs: 1 % of a CPU at most; */
    CROWD_LAST_US = 200000, /* for so long after the last connection: as STILL_US */
};

/* ---- at work, or not ------------------------------------------------------------------ */

/* A poll or select of no descriptors is a sleep (Python's time.sleep before 3.11 is one). */
static bool waits(const char *text)
{
    struct rc_thread_call call;
    rc_thread_parse(text, &call);
    switch (rc_thread_waits(&call)) {
    case RC_WAIT_NONE:
        return false;
    case RC_WAIT_POLL:
        return call.argument[1] != 0;
    case RC_WAIT_SELECT:
        return call.argument[0] != 0;
    default:
        return true;
    }
}

enum rc_activity rc_worker_activity(struct rc_worker *worker)
{
    char text[256];
    if (worker->pid <= 0 || worker->dead || worker->inscrutable)
        return RC_ACTIVITY_UNKNOWN;
    ssize_t length = rc_procfile_read(worker, RC_PROCFILE_SYSCALL, text, sizeof text);
    if (length <= 0) {
        /* Yama, hidepid or a kernel without it: it will not be better next time.
         * A shortage of descriptors will. */
        worker->inscrutable = length == -EPERM || length == -EACCES || length == -ENOENT;
        return RC_ACTIVITY_UNKNOWN;
    }
    if (waits(text)) {
        worker->seen_waiting = true;
        return RC_ACTIVITY_WAIT;
    }
    return worker->seen_waiting ? RC_ACTIVITY_WORK : RC_ACTIVITY_UNKNOWN;
}

/* Whether its worker is at work. */
void rc_lane_works(struct rc_engine *engine, struct rc_lane *lane, bool works, int64_t now)
{
    struct rc_pressure *pressure = &lane->pressure;
    enum rc_pressure_kind before = pressure->work;
    if (works && before == RC_FREE)
        pressure->busy_at = engine->polling.stirred_at = now;
    pressure->work = !works                                ? RC_FREE
                     : now - pressure->busy_at < TAKES_US  ? RC_TAKING
                     : now - pressure->busy_at < BLOCKS_US ? RC_BUSY
                                                           : RC_BLOCKED;
    lane->group->stale |= pressure->work != before;
}

/* ---- when it is looked ------------------------------------------------------------------ */

/* Connections that listeners of this network namespace have been given (proc(5),
 * RFC 1213 tcpPassiveOpens); 0 where it cannot be read. */
static uint64_t opened(void)
{
    static const unsigned field = 6; /* of the second "Tcp:" line */
    char text[4096];
    const char *at = NULL;
    if (rc_proc_read(getpid(), "net/snmp", text, sizeof text) > 0)
        at = strstr(text, "\nTcp: ");
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

/* How long what was seen of a worker is believed. */
static int64_t believed_us(const struct rc_lane *lane)
{
    switch (lane->pressure.work) {
    case RC_BLOCKED:
        return BLOCKED_SAMPLE_US;
    case RC_TAKING:
        return TAKING_SAMPLE_US;
    default:
        return SAMPLE_US;
    }
}

static void sample(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    struct rc_pressure *pressure = &lane->pressure;
    if (now < pressure->sampled_at + believed_us(lane))
        return;
    pressure->sampled_at = now;
    bool works =
        rc_lane_judged(engine, lane) && rc_worker_activity(lane->worker) == RC_ACTIVITY_WORK;
    rc_lane_works(engine, lane, works, now);
    if (pressure->work == RC_BLOCKED && rc_group_any_free(lane->group))
        rc_polling_begin(engine, now); /* or goes on */
    if (!works && pressure->look_at && !pressure->congested && rc_lane_queued(lane, NULL) == 0)
        rc_lane_rest(engine, lane, now); /* to see the next one come */
}

/* Of all workers that it is time for. */
void rc_polling_sweep(struct rc_engine *engine, int64_t now)
{
    unsigned lanes = 0;
    if (!engine->polling.until)
        return;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        lanes += group->count;
    bool on = rc_polling_goes_on(engine, lanes, now);
    bool due = on && now >= engine->polling.look_at;
    if (due) /* all at a time: each at its own would wake us more often */
        engine->polling.look_at = now + SAMPLE_US;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (!on) /* nobody looks any more, so nothing is known */
                rc_lane_works(engine, lane, false, now);
            else if (due && rc_lane_watched(lane))
                sample(engine, lane, now);
            if (due && lane->pressure.work == RC_TAKING)
                engine->polling.look_at = now + TAKING_SAMPLE_US;
        }
    if (on)
        rc_sweep_at(engine, engine->polling.look_at);
}

/* A connection waits in a lane that was at rest: its worker is about to be at work, and the next
 * look tells whether it still is. True if that is to be minded. */
bool rc_polling_arrival(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    if (!rc_polling_on(engine, now))
        return false;
    lane->pressure.sampled_at = now;
    rc_lane_works(engine, lane, true, now);
    if (engine->polling.look_at > now + TAKING_SAMPLE_US)
        engine->polling.look_at = now + TAKING_SAMPLE_US;
    rc_sweep_at(engine, engine->polling.look_at);
    return true;
}

/* ---- what is open ------------------------------------------------------------------------- */

/* Those in that folder but "." and ".."; -1: it cannot be read. */
int rc_imbalance_names(const char *path)
{
    DIR *names = opendir(path);
    if (!names)
        return -1;
    int count = -2;
    while (readdir(names))
        count++;
    (void)closedir(names);
    return count;
}

/* -1: cannot be known. */
static int open_descriptors(struct rc_worker *worker, bool *first)
{
    char path[32];
    struct stat about;
    if (worker->pid <= 0 || worker->dead)
        return -1;
    *first |= worker->procfiles[RC_PROCFILE_FD] < 0; /* the way there costs more than the rest */
    int fd = rc_procfile_take(worker, RC_PROCFILE_FD);
    int error = fd < 0 ? fd : fstat(fd, &about);
    rc_procfile_put(worker, RC_PROCFILE_FD, fd);
    if (error)
        return -1;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)worker->pid);
    return about.st_size > 0 ? (int)about.st_size : rc_imbalance_names(path);
}

/* A flood begins with one more for every second worker since the last look, and ends when
 * it is half of that. */
static void see_flood(struct rc_group *group, int known, int total)
{
    int least = known / 2 > FLOOD_LEAST ? known / 2 : FLOOD_LEAST;
    bool flooded = known > 1 && known == group->known &&
                   total - group->open >= (group->flooded ? least / 2 : least);
    group->stale |= flooded != group->flooded;
    group->flooded = flooded;
    group->open = total;
    group->known = known;
}

static void look_at(struct rc_engine *engine, struct rc_group *group, bool *first)
{
    int known = 0, total = 0, least = INT32_MAX;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        lane->pressure.open =
            rc_lane_judged(engine, lane) ? open_descriptors(lane->worker, first) : -1;
        if (lane->pressure.open < 0)
            continue;
        lane->pressure.open += (int)rc_lane_queued(lane, NULL);
        known++;
        total += lane->pressure.open;
        if (lane->pressure.open < least)
            least = lane->pressure.open;
    }
    see_flood(group, known, total);
    int mean = known ? total / known : 0, most = mean + (mean - least) / PART + SLACK;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_pressure *pressure = &group->lanes[at]->pressure;
        bool crowded = pressure->open >= 0 && pressure->open > most;
        group->stale |= crowded != pressure->crowded;
        pressure->crowded = crowded;
    }
}

/* Of this thread: what others do meanwhile is no cost of ours. */
static int64_t cpu_us(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

/* Who is crowded. Returns what such a look costs, in us of CPU; 0: not known yet, for this
 * was the first one at a worker. */
int64_t rc_imbalance_look(struct rc_engine *engine)
{
    int64_t began = cpu_us();
    bool first = false;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        look_at(engine, group, &first);
    return first ? 0 : cpu_us() - began;
}

/* Nobody looks any more, so nothing is known of how it grows. */
void rc_imbalance_end(struct rc_engine *engine)
{
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        group->stale |= group->flooded;
        group->flooded = false;
        group->known = 0;
    }
}

/* A connection has come: what is open is looked at for a while. */
void rc_imbalance_begin(struct rc_engine *engine, int64_t now)
{
    engine->imbalance_until = now + CROWD_LAST_US;
    if (engine->imbalance_at)
        return;
    engine->imbalance_at = now + CROWD_US;
    rc_sweep_at(engine, engine->imbalance_at);
}

void rc_imbalance_sweep(struct rc_engine *engine, int64_t now)
{
    if (!engine->imbalance_at)
        return;
    if (engine->imbalance_at <= now) {
        int64_t next = rc_imbalance_look(engine) * CROWD_COST;
        engine->imbalance_at = now + (next > CROWD_US ? next : CROWD_US);
        if (now >= engine->imbalance_until) {
            engine->imbalance_at = 0;
            rc_imbalance_end(engine);
        }
    }
    if (engine->imbalance_at)
        rc_sweep_at(engine, engine->imbalance_at);
}
