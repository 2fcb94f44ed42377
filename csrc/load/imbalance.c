/* imbalance.c - which workers have more connections open than the others?
 *
 * Owns: the reading of it, from the number of descriptors a process has open: what
 * its programs have beside connections, they all have. The kernel tells it as the
 * size of /proc/PID/fd (proc(5), Linux 6.2); before, the names there are counted.
 * Whose connections a socket's are is told to nobody without privilege.
 *
 * A worker is crowded when it has more than the others by what chance would not
 * make of even shares; then the others are preferred until it is level with them.
 * And a group is flooded while connections come, and stay, faster than that.
 */
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum { SLACK = 2, PART = 8, FLOOD_LEAST = 4 };

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
    if (worker->pid <= 0 || worker->dead) /* not reaped, so the number is still its own */
        return -1;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)worker->pid);
    if (worker->open_fd < 0) { /* a way to the folder, which costs more than the rest */
        worker->open_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        *first = true;
    }
    if (worker->open_fd < 0 || fstat(worker->open_fd, &about) < 0)
        return -1;
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
