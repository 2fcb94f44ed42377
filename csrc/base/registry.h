/* registry.h - the small things that every part asks for: a worker by its id, an event
 * for the caller, memory that lives until the turn is over; and the limit of descriptors.
 */
#ifndef RECLUSTER_REGISTRY_H
#define RECLUSTER_REGISTRY_H

#include "recluster.h"

#include <stddef.h>
#include <stdint.h>

struct rc_engine;
struct rc_key;
struct rc_worker;

/* limits.c */
void rc_descriptors_restore(const struct rc_engine *engine);
bool rc_descriptors_spare(int fd);

/* registry.c */
void rc_bury(struct rc_engine *engine, void *memory); /* begins with a grave */
void rc_free_graves(struct rc_engine *engine);
struct rc_worker *rc_find(struct rc_engine *engine, uint32_t id);
void rc_emit(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
             const char *text, size_t length);
void rc_emit_place(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                   const char *place);
void rc_emit_key(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                 const struct rc_key *key);

#endif
