/* alarm.c - the few things that have a time: one timer for all of them.
 *
 * Owns: the timerfd, and when each is due. Does not own what is done then.
 * Invariant: the timer is set to the earliest, or not at all.
 */
#include "internal.h"

#include <sys/timerfd.h>
#include <unistd.h>

static void set_timer(struct rc_alarm *alarm)
{
    int64_t first = 0;
    for (int kind = 0; kind < RC_ALARMS; kind++)
        if (alarm->at[kind] && (!first || alarm->at[kind] < first))
            first = alarm->at[kind];
    struct itimerspec when = {.it_value = {first / 1000000, first % 1000000 * 1000}}; /* 0: none */
    if (first != alarm->set &&
        timerfd_settime(alarm->source.fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
        alarm->set = first;
}

/* Microseconds of CLOCK_MONOTONIC; 0: not. */
void rc_alarm_set(struct rc_engine *engine, enum rc_alarm_kind kind, int64_t at)
{
    engine->alarm.at[kind] = at;
    set_timer(&engine->alarm);
}

int rc_alarm_open(struct rc_engine *engine)
{
    return rc_timer_add(engine->epoll, &engine->alarm.source, RC_SOURCE_ALARM);
}

void rc_alarm_ring(struct rc_engine *engine, rc_alarm_due *const due[RC_ALARMS])
{
    struct rc_alarm *alarm = &engine->alarm;
    uint64_t times;
    int64_t now = rc_now_us();
    if (read(alarm->source.fd, &times, sizeof times) != sizeof times)
        return;
    alarm->set = 0;
    for (int kind = 0; kind < RC_ALARMS; kind++)
        if (alarm->at[kind] && alarm->at[kind] <= now) {
            alarm->at[kind] = 0;
            due[kind](engine);
        }
    set_timer(alarm);
}
