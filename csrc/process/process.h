/* process.h - a worker as a process: its birth, what it says, its end; and the guard,
 * which ends all of them. Direction: spawn, mold, reading, stop -> channel, guard, strays.
 */
#ifndef RECLUSTER_PROCESS_H
#define RECLUSTER_PROCESS_H

#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rc_asked;
struct rc_engine;
struct rc_worker;

struct rc_buffer {
    char *bytes;
    size_t start, end, room;
};

struct rc_channel {
    struct rc_buffer in, out;
    bool greeted;    /* the hello of the child has been read */
    bool discarding; /* inside a line that is too long */
    bool held;       /* nothing goes out yet: the child is not born */
    bool finished;   /* end of file, or a broken socket */
};

/* What a child says first, with its door's listener attached (or an errno). */
struct rc_hello {
    uint32_t magic;
    int32_t error;
};
#define RC_HELLO_MAGIC 0x72636c31u

struct rc_guard {
    struct rc_source source; /* pidfd */
    pid_t pid;
    int line;   /* our end; its end of file is the master's death */
    bool stale; /* it was not told all */
};

/* What a new one has to know. */
struct rc_guarded {
    struct rc_asked *asked;
    pid_t *group;
    int *door;
    size_t groups, doors;
};

struct rc_become {
    bool changes, masks;
    uid_t uid;
    gid_t gid, *groups;
    size_t count;
    mode_t umask;
};

/* channel.c */
int rc_channel_greet(int fd, int door, int error);
int rc_channel_hello(int fd, struct rc_hello *hello, int *door);
int rc_channel_read(struct rc_channel *channel, int fd);
int rc_channel_line(struct rc_channel *channel, const char **line, size_t *length);
bool rc_channel_has_line(const struct rc_channel *channel);
int rc_channel_send(struct rc_channel *channel, int fd, const char *line, size_t length);
int rc_channel_flush(struct rc_channel *channel, int fd);
void rc_channel_free(struct rc_channel *channel);

/* guard.c */
int rc_guard_start(struct rc_guard *guard, int epoll, const struct rc_guarded *known);
int rc_guard_add(struct rc_guard *guard, pid_t group);
int rc_guard_remove(struct rc_guard *guard, pid_t group);
int rc_guard_door(struct rc_guard *guard, int door);
bool rc_guard_takes(const struct rc_guard *guard);
void rc_guard_stop(struct rc_guard *guard, int epoll);
void rc_guard_leave(struct rc_guard *guard, int epoll);

/* giveback.c */
void rc_memory_give_back(const uintptr_t *called, size_t count);

/* guarding.c */
int rc_guard_ready(struct rc_engine *engine);
int rc_guard_renew(struct rc_engine *engine);
int rc_guard_relieve(struct rc_engine *engine, struct rc_guard *before);

/* reading.c */
void rc_hear(struct rc_engine *engine, struct rc_worker *worker);
bool rc_has_to_tell(const struct rc_worker *worker);
void rc_channel_ready(struct rc_engine *engine, struct rc_worker *worker, uint32_t ready);

/* identity.c */
int rc_become(const struct rc_engine *engine);

/* mold.c */
int rc_mold_status(const struct rc_engine *engine, const struct rc_worker *worker);
bool rc_birth_under_way(const struct rc_engine *engine);

/* output.c */
int rc_output_child(const int *output);
void rc_output_close(struct rc_worker *worker);

/* spawn.c */
unsigned rc_spawn_traps(const struct rc_engine *engine, struct rc_worker *worker);
void rc_child_begin(int channel, int traps, bool ours);
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker);
void rc_worker_departed(struct rc_engine *engine, struct rc_worker *worker);

/* strays.c */
void rc_strays_note(const struct rc_engine *engine, struct rc_worker *worker);

#endif
