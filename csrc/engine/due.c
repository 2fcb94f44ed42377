/* due.c - what is done when the time of an alarm has come.
 *
 * Owns: who is called for which. Does not own the time (base/alarm.c), so whoever sets an
 * alarm need not know who is above it.
 */
#include "internal.h"

void rc_due(struct rc_engine *engine)
{
    static rc_alarm_due *const due[RC_ALARMS] = {
        [RC_ALARM_CALLERS] = rc_callers_alarm,
        [RC_ALARM_SIDES] = rc_udp_alarm,
        [RC_ALARM_RINGS] = rc_rings_alarm,
        [RC_ALARM_KEPT] = rc_handover_alarm,
        [RC_ALARM_UNIX_PROOFS] = rc_unix_proofs_alarm,
        [RC_ALARM_UNIX] = rc_unix_alarm,
    };
    rc_alarm_ring(engine, due);
}
