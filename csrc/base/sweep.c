/* sweep.c - the one timer of all lanes: the next time at which any of them is to be looked at.
 *
 * Owns the timer. Who looks at lanes then is watch/congestion.c; whoever wants to be looked at
 * says when, again in each sweep.
 *
 * Invariant: while somebody waits for a look, the timer is set, or a sweep is under way.
 */
#include "internal.h"

#include <sys/timerfd.h>
#include <unistd.h>

static void set_timer(struct rc_engine *engine)
{
    int64_t at = engine->sweep_at;
    struct itimerspec when = {
        .it_value = {.tv_sec = at / 1000000, .tv_nsec = at % 1000000 * 1000 + 1}};
    if (timerfd_settime(engine->sweep.fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        engine->sweep_at = 0;
}

/* At the latest; us of CLOCK_MONOTONIC. In a sweep there are many, so the timer is set at its
 * end. */
void rc_sweep_at(struct rc_engine *engine, int64_t us)
{
    if (engine->sweep_at && engine->sweep_at <= us)
        return;
    engine->sweep_at = us;
    if (!engine->sweeping)
        set_timer(engine);
}

/* False where it is not time yet. */
bool rc_sweep_begin(struct rc_engine *engine)
{
    uint64_t times;
    if (read(engine->sweep.fd, &times, sizeof times) != sizeof times)
        return false;
    engine->sweep_at = 0;
    engine->sweeping = true;
    return true;
}

void rc_sweep_end(struct rc_engine *engine)
{
    engine->sweeping = false;
    if (engine->sweep_at)
        set_timer(engine);
}
