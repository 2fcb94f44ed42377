/* loop.h - what is in the epoll set, and memory that an event later in the turn may
 * still look at (registry.c). Bottom: knows nobody.
 */
#ifndef RECLUSTER_LOOP_H
#define RECLUSTER_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RC_CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* First in whatever may be buried: burying cannot fail, and spoils nothing that
 * a later event of the turn looks at. */
struct rc_grave {
    struct rc_grave *next;
};

enum rc_source_kind {
    RC_SOURCE_TIMER,
    RC_SOURCE_SWEEP,
    RC_SOURCE_WATCH,
    RC_SOURCE_GUARD,
    RC_SOURCE_PROCESS,
    RC_SOURCE_CHANNEL,
    RC_SOURCE_DOOR,
    RC_SOURCE_LOOK,
    RC_SOURCE_LANE,
    RC_SOURCE_SHIM_PORT,
    RC_SOURCE_SHIM_CALL,
    RC_SOURCE_ALARM,
    RC_SOURCE_UNCLAIMED,
    RC_SOURCE_FRONT,
    RC_SOURCE_PAIR,
    RC_SOURCE_PATIENCE,
    RC_SOURCE_OPENS,
    RC_SOURCE_PROOF,
    RC_SOURCE_RING,
    RC_SOURCE_KEPT,
};

/* A descriptor in the epoll set, embedded in what owns it. fd is -1 when shut. */
struct rc_source {
    enum rc_source_kind kind;
    int fd;
    uint32_t armed;
};

int64_t rc_now_us(void);
int rc_poll(int fd, short events, int64_t until_us);
int rc_source_add(int epoll, struct rc_source *source, enum rc_source_kind kind, int fd,
                  uint32_t events);
int rc_timer_add(int epoll, struct rc_source *source, enum rc_source_kind kind);
int rc_source_arm(int epoll, struct rc_source *source, uint32_t events);
void rc_source_shut(int epoll, struct rc_source *source);
void rc_source_leave(int epoll, struct rc_source *source);
void rc_close(int *fd);

#define RC_DESCRIPTORS_MOST 3
int rc_send_descriptor(int socket, const void *bytes, size_t length, int fd);
int rc_send_descriptors(int socket, const void *bytes, size_t length, const int *fds, size_t count);
ssize_t rc_receive_descriptor(int socket, void *bytes, size_t length, int *fd);

#endif
