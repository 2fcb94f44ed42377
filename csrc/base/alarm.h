/* alarm.h - what has a time (what is done then, the engine knows: due.c), and the one timer of
 * all lanes.
 */
#ifndef RECLUSTER_ALARM_H
#define RECLUSTER_ALARM_H

#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct rc_engine;

enum rc_alarm_kind {
    RC_ALARM_CALLERS,
    RC_ALARM_SIDES,
    RC_ALARM_RINGS,
    RC_ALARM_KEPT,
    RC_ALARM_UNIX_PROOFS,
    RC_ALARM_UNIX,
    RC_ALARMS
};

struct rc_alarm {
    struct rc_source source;
    int64_t at[RC_ALARMS]; /* us; 0: not */
    int64_t set;           /* what the timer is set to */
};

/* alarm.c */
int rc_alarm_open(struct rc_engine *engine);
void rc_alarm_set(struct rc_engine *engine, enum rc_alarm_kind kind, int64_t at);
typedef void rc_alarm_due(struct rc_engine *engine);
void rc_alarm_ring(struct rc_engine *engine, rc_alarm_due *const due[RC_ALARMS]);

/* sweep.c */
void rc_sweep_at(struct rc_engine *engine, int64_t us);
bool rc_sweep_begin(struct rc_engine *engine);
void rc_sweep_end(struct rc_engine *engine);

#endif
