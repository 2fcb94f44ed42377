/* loop.h - what is in the epoll set, and memory that an event later in the turn may
 * still look at. Bottom: knows nobody.
 */
#ifndef RECLUSTER_LOOP_H
#define RECLUSTER_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RC_CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* First in whatever may be buried: burying cannot fail, and spoils nothing that
 * a later event of the turn looks at. */
struct rc_grave {
    struct rc_grave *next;
};

enum rc_source_kind {
    RC_SOURCE_TIMER,
    RC_SOURCE_SWEEP,
    RC_SOURCE_SIGNALS,
    RC_SOURCE_WATCH,
    RC_SOURCE_GUARD,
    RC_SOURCE_PROCESS,
    RC_SOURCE_CHANNEL,
    RC_SOURCE_DOOR,
    RC_SOURCE_LANE,
    RC_SOURCE_SHIM_PORT,
    RC_SOURCE_SHIM_CALL,
    RC_SOURCE_UNIX,
    RC_SOURCE_ERRAND,
    RC_SOURCE_FRONT,
    RC_SOURCE_PAIR,
    RC_SOURCE_PATIENCE,
    RC_SOURCE_OPENS,
};

/* A descriptor in the epoll set, embedded in what owns it. fd is -1 when shut. */
struct rc_source {
    enum rc_source_kind kind;
    int fd;
    uint32_t armed;
};

int64_t rc_now_us(void);
int rc_source_add(int epoll, struct rc_source *source, enum rc_source_kind kind, int fd,
                  uint32_t events);
int rc_source_arm(int epoll, struct rc_source *source, uint32_t events);
void rc_source_shut(int epoll, struct rc_source *source);
void rc_close(int *fd);

/* registry.c */
struct rc_engine;
void rc_bury(struct rc_engine *engine, void *memory); /* begins with a grave */
void rc_free_graves(struct rc_engine *engine);

#endif
