/* carry.h - what a master knows of its workers and lanes, as text for the one that takes its
 * place in the same process (execve): the records, and how they are written and read.
 *
 * Direction: carry, resume -> unixes, dispatched -> text.
 */
#ifndef RECLUSTER_CARRY_H
#define RECLUSTER_CARRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Changes with any record, and with any struct of which the bytes are carried (rc_key,
 * rc_pending, rc_zero_count, rc_guest, rc_open, rc_accepted, and bpf/shared.h). */
enum { RC_CARRY_FORMAT = 2 };

/* Of what has been read they lie in memory of the reader's (rc_carried_free). */
struct rc_bytes {
    char *at;
    size_t length;
};

/* Each record once, as a list of its fields: it makes the struct and the names. */
#define RC_ENGINE_RECORD(NUMBER, BYTES)                                                            \
    NUMBER(format)                                                                                 \
    NUMBER(guard)                                                                                  \
    NUMBER(line)                                                                                   \
    NUMBER(shim)                                                                                   \
    NUMBER(token)                                                                                  \
    NUMBER(limited)                                                                                \
    NUMBER(limit)                                                                                  \
    NUMBER(limit_most)                                                                             \
    NUMBER(expects_paths)                                                                          \
    NUMBER(bells)                                                                                  \
    NUMBER(bells_shown)                                                                            \
    NUMBER(bpf_lanes)                                                                              \
    NUMBER(bpf_marks)                                                                              \
    NUMBER(bpf_tallies)                                                                            \
    NUMBER(bpf_link)                                                                               \
    NUMBER(dispatches)                                                                             \
    BYTES(opens)
#define RC_WORKER_RECORD(NUMBER, BYTES)                                                            \
    NUMBER(id)                                                                                     \
    NUMBER(generation)                                                                             \
    NUMBER(slot)                                                                                   \
    NUMBER(party)                                                                                  \
    NUMBER(pid)                                                                                    \
    NUMBER(born)                                                                                   \
    NUMBER(born_ns)                                                                                \
    NUMBER(process)                                                                                \
    NUMBER(channel)                                                                                \
    NUMBER(channel_inode)                                                                          \
    NUMBER(door)                                                                                   \
    NUMBER(adopted)                                                                                \
    NUMBER(accepts)                                                                                \
    NUMBER(unproven)                                                                               \
    NUMBER(seen_waiting)                                                                           \
    NUMBER(inscrutable)                                                                            \
    NUMBER(blind)                                                                                  \
    NUMBER(lies)                                                                                   \
    NUMBER(unlinks_seen)                                                                           \
    NUMBER(receives)                                                                               \
    NUMBER(accepted)                                                                               \
    NUMBER(passes)                                                                                 \
    NUMBER(takes)                                                                                  \
    NUMBER(took)                                                                                   \
    NUMBER(given)                                                                                  \
    NUMBER(forgiven)                                                                               \
    BYTES(passed)                                                                                  \
    BYTES(pending)                                                                                 \
    BYTES(zeros)                                                                                   \
    BYTES(heard)                                                                                   \
    BYTES(unsent)
#define RC_GROUP_RECORD(NUMBER, BYTES)                                                             \
    BYTES(key)                                                                                     \
    BYTES(zero)                                                                                    \
    NUMBER(zero_index)                                                                             \
    NUMBER(speaks)                                                                                 \
    NUMBER(blocks)                                                                                 \
    NUMBER(flow_lanes)                                                                             \
    NUMBER(flows)                                                                                  \
    NUMBER(unsure)                                                                                 \
    BYTES(guests)                                                                                  \
    BYTES(asides)                                                                                  \
    BYTES(undelivered)
#define RC_LANE_RECORD(NUMBER, BYTES)                                                              \
    NUMBER(fd)                                                                                     \
    NUMBER(worker)                                                                                 \
    NUMBER(party)                                                                                  \
    NUMBER(index)                                                                                  \
    NUMBER(pid)                                                                                    \
    NUMBER(descriptor)                                                                             \
    NUMBER(number)                                                                                 \
    NUMBER(counted)                                                                                \
    NUMBER(backlog)                                                                                \
    NUMBER(inherited)                                                                              \
    NUMBER(ours)                                                                                   \
    NUMBER(deaf)                                                                                   \
    NUMBER(by_leader)                                                                              \
    NUMBER(proven)                                                                                 \
    NUMBER(front)                                                                                  \
    NUMBER(pair)                                                                                   \
    NUMBER(theirs)                                                                                 \
    NUMBER(pair_inode)                                                                             \
    NUMBER(offered)                                                                                \
    NUMBER(late)                                                                                   \
    BYTES(others)
#define RC_UNIX_RECORD(NUMBER, BYTES)                                                              \
    BYTES(name)                                                                                    \
    NUMBER(owned)                                                                                  \
    BYTES(who)                                                                                     \
    BYTES(text)                                                                                    \
    BYTES(given)                                                                                   \
    NUMBER(fd)                                                                                     \
    NUMBER(device)                                                                                 \
    NUMBER(inode)                                                                                  \
    NUMBER(lost)                                                                                   \
    NUMBER(removed)                                                                                \
    NUMBER(shared)                                                                                 \
    NUMBER(ours)                                                                                   \
    NUMBER(rights)                                                                                 \
    NUMBER(backlog)                                                                                \
    NUMBER(directory)                                                                              \
    BYTES(asks)                                                                                    \
    BYTES(members)

#define RC_FIELD_NUMBER(name) int64_t name;
#define RC_FIELD_BYTES(name) struct rc_bytes name;
struct rc_carried_engine {
    RC_ENGINE_RECORD(RC_FIELD_NUMBER, RC_FIELD_BYTES)
};
struct rc_carried_worker {
    RC_WORKER_RECORD(RC_FIELD_NUMBER, RC_FIELD_BYTES)
};
struct rc_carried_group {
    RC_GROUP_RECORD(RC_FIELD_NUMBER, RC_FIELD_BYTES)
};
struct rc_carried_lane {
    RC_LANE_RECORD(RC_FIELD_NUMBER, RC_FIELD_BYTES)
};
struct rc_carried_unix {
    RC_UNIX_RECORD(RC_FIELD_NUMBER, RC_FIELD_BYTES)
};

enum rc_carried_kind {
    RC_CARRIED_NONE, /* the end of the text */
    RC_CARRIED_ENGINE,
    RC_CARRIED_WORKER,
    RC_CARRIED_GROUP, /* its lanes follow, in their order */
    RC_CARRIED_LANE,
    RC_CARRIED_UNIX,
    RC_CARRIED_KINDS,
};
struct rc_carried {
    enum rc_carried_kind kind;
    union {
        struct rc_carried_engine engine;
        struct rc_carried_worker worker;
        struct rc_carried_group group;
        struct rc_carried_lane lane;
        struct rc_carried_unix local;
    } is;
};

/* text.c */
struct rc_carry_text {
    char *bytes;
    size_t length, room;
    bool failed; /* there was no memory */
};
void rc_carry_write(struct rc_carry_text *text, const struct rc_carried *record);
int rc_carry_read(const char **at, const char *end, struct rc_carried *out, const char **missed);
void rc_carried_free(struct rc_carried *record);

/* unixes.c */
struct rc_engine;
struct rc_unix_lane;
void rc_carry_unixes(struct rc_carry_text *text, const struct rc_unix_lane *newest);
const char *rc_carry_unix_hinders(const struct rc_engine *engine);
void rc_carry_unix_fds(const struct rc_engine *engine, void (*keep)(int fd, bool on), bool on);
bool rc_carried_unix_fits(const struct rc_carried_unix *record);
int rc_carried_unix_take(struct rc_engine *engine, const struct rc_carried_unix *record);

/* dispatched.c */
struct rc_group;
struct rc_lane;
struct rc_bytes rc_carry_undelivered(const struct rc_group *group);
void rc_carry_dispatch_fds(const struct rc_group *group, void (*keep)(int fd, bool on), bool on);
bool rc_carried_undelivered_fits(const struct rc_bytes *undelivered);
int rc_carried_undelivered_take(struct rc_group *group, const struct rc_bytes *undelivered);
int rc_carried_receiver_take(struct rc_engine *engine, struct rc_lane *lane,
                             const struct rc_carried_lane *record);

#endif
