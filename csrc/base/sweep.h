/* sweep.h - the one timer of all lanes. */
#ifndef RECLUSTER_SWEEP_H
#define RECLUSTER_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

struct rc_engine;

void rc_sweep_at(struct rc_engine *engine, int64_t us);
bool rc_sweep_begin(struct rc_engine *engine);
void rc_sweep_end(struct rc_engine *engine);

#endif
