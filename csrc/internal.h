/* internal.h - what the engine's files share. Not installed, not public.
 *
 * Direction of dependencies: engine -> spawn, doors (notify, shimdoor) -> bind,
 * listen -> pending, deaf, inherited, udp, unixdoor -> lanes, unix -> kernel, steering,
 * udpflow, sockets; facts -> lanes, unixfacts, diag, holders.
 * At the bottom, knowing nobody: channel, guard, loop, registry.
 */
#ifndef RECLUSTER_INTERNAL_H
#define RECLUSTER_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* Linux only, and says so once; hence this header comes first */
#endif

#include "recluster.h"

#include <linux/inet_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define RC_CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* First in whatever may be buried: burying cannot fail, and spoils nothing that
 * a later event of the turn looks at. */
struct rc_grave {
    struct rc_grave *next;
};

/* ---- loop.c: epoll registrations ---------------------------------------- */

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

#include "dispatch.h"

int64_t rc_now_us(void);
int rc_source_add(int epoll, struct rc_source *source, enum rc_source_kind kind, int fd,
                  uint32_t events);
int rc_source_arm(int epoll, struct rc_source *source, uint32_t events);
void rc_source_shut(int epoll, struct rc_source *source);
void rc_close(int *fd);

/* ---- channel.c: newline-delimited JSON over a stream socket --------------- */

struct rc_buffer {
    char *bytes;
    size_t start, end, room;
};

struct rc_channel {
    struct rc_buffer in, out;
    bool greeted;    /* the hello of the child has been read */
    bool discarding; /* inside a line that is too long */
    bool finished;   /* end of file, or a broken socket */
};

/* What a child says first, with its door's listener attached (or an errno). */
struct rc_hello {
    uint32_t magic;
    int32_t error;
};
#define RC_HELLO_MAGIC 0x72636c31u

int rc_channel_greet(int fd, int door, int error);
int rc_channel_hello(int fd, struct rc_hello *hello, int *door);
int rc_channel_read(struct rc_channel *channel, int fd);
int rc_channel_line(struct rc_channel *channel, const char **line, size_t *length);
bool rc_channel_has_line(const struct rc_channel *channel);
int rc_channel_send(struct rc_channel *channel, int fd, const char *line, size_t length);
int rc_channel_flush(struct rc_channel *channel, int fd);
void rc_channel_free(struct rc_channel *channel);

/* ---- guard.c: kills every slot's processes when the master is gone -------- */

struct rc_guard {
    struct rc_source source; /* pidfd */
    pid_t pid;
    int pipe; /* our write end; its end of file is the master's death */
};

int rc_guard_start(struct rc_guard *guard, int epoll);
int rc_guard_add(const struct rc_guard *guard, pid_t group);
int rc_guard_remove(const struct rc_guard *guard, pid_t group);
bool rc_guard_takes(const struct rc_guard *guard);
void rc_guard_stop(struct rc_guard *guard, int epoll);

/* ---- connections: diag.c, holders.c, facts.c ------------------------------- */

/* A TCP connection, by the kernel's name for it. */
struct rc_flow {
    struct inet_diag_sockid id; /* with the cookie no two are the same */
    uint32_t inode;             /* 0: no process has it */
    uint8_t family;
    bool held;
    pid_t holder; /* the first that was seen to have it, */
    int number;   /* as this descriptor */
};

struct rc_flows {
    struct rc_flow *all;
    size_t count, room;
};

struct rc_flow_facts {
    uint8_t state;
    uint32_t inode, unread, unsent;
    uint64_t received, sent;       /* bytes */
    uint32_t received_ms, sent_ms; /* since the last one; since the handshake if there is none */
};

struct rc_engine;
int rc_diag_dump(struct rc_engine *engine, sa_family_t family, in_port_t port, uint32_t states,
                 struct rc_flows *flows);
int rc_diag_find(struct rc_engine *engine, const struct rc_flow *flow, struct rc_flow_facts *out);
void rc_flows_free(struct rc_flows *flows);
int rc_holders_mark(pid_t group, struct rc_flows *flows);

struct rc_drain {
    struct rc_retirement *retirement; /* shared by those that retired together */
    struct rc_flows connections;
    int half_open;   /* at the last look */
    bool empty;      /* its lanes' queues, at the last look */
    bool known;      /* connections are those of the worker */
    int64_t calm_ms; /* CLOCK_MONOTONIC of the first such look, of AF_UNIX connections */
};
void rc_drain_free(struct rc_drain *drain);

/* ---- workers -------------------------------------------------------------- */

struct rc_worker;

/* What makes two listening addresses one group. */
struct rc_key {
    struct sockaddr_in6 address; /* a sockaddr_in lies in it zero-padded */
    int v6only;
    int device;
    int type; /* SOCK_STREAM, SOCK_DGRAM */
    uid_t uid;
};

/* A bind that may become a lane. Held by numbers, not by a descriptor: a bind
 * that never listens must leave no trace. */
struct rc_pending {
    pid_t pid;
    int fd;
    uint64_t inode;
    bool reuse_address; /* what the program had set, restored at listen */
    struct rc_key key;
    struct sockaddr_in6 zero; /* what a port-0 bind asked for */
    int zero_index;           /* n-th such bind of the worker, -1: a given port */
};
enum { RC_PENDING_MAX = 64 };

struct rc_zero_count {
    struct sockaddr_in6 asked;
    int listened;
};

struct rc_worker {
    struct rc_grave grave;
    struct rc_worker *next;
    uint32_t id, heir_of;
    unsigned generation;  /* those of one share the AF_UNIX listeners */
    struct timespec born; /* CLOCK_REALTIME */
    pid_t pid;
    struct rc_source process; /* pidfd */
    struct rc_source channel_source;
    struct rc_source door;
    struct rc_channel channel;
    int child_channel; /* the child's end, until the fork */
    bool live;         /* the caller wants it steered to */
    double weight;     /* its part of new connections, against the others' */
    uint32_t slot;     /* what source_ip knows it by */
    uint32_t party;    /* workers of one party share their lanes (sharing.c); 0: none */
    bool dead;         /* its leader has been reaped */
    bool leaving;      /* exit status is known, the channel is being emptied */
    bool gone;
    bool seen_waiting; /* its main thread, for connections (doing.c) */
    bool inscrutable;  /* what it does cannot be seen here */
    int doing_fd;      /* its /proc/PID/syscall, or -1 */
    int open_fd;       /* its /proc/PID/fd, or -1 */
    unsigned hung_lanes;
    unsigned pumped; /* the turn in which its channel was last read */
    int status;
    struct rc_pending pending[RC_PENDING_MAX];
    unsigned pendings;
    struct rc_zero_count zeros[8]; /* port-0 binds that listened, by address */
    struct rc_drain drain;
    bool takes;        /* dispatch may give it connections */
    uint64_t given;    /* how many it did, or will at its next accept */
    unsigned promised; /* of these, how many are offers by a bell */
    unsigned open;     /* of these, how many are open (opens.c) */
};

/* ---- lanes, and what leads to them ------------------------------------------------ */

/* What was seen of a lane; times in microseconds of CLOCK_MONOTONIC, 0: not. */
struct rc_pressure {
    unsigned queued;    /* at marked_at, or at the last look at a queue that stands still */
    unsigned interval;  /* until the next look */
    int64_t look_at;    /* the next look */
    unsigned hot;       /* so many more looks before it is armed again */
    int64_t armed_at;   /* since when the next connection in it wakes us */
    int64_t busy_at;    /* since when its worker is at work */
    int open;           /* descriptors that its worker had open at the last look; -1: unknown */
    int64_t marked_at;  /* when its queue was last seen to be new or smaller */
    int64_t still_us;   /* it had stood still for so long at the last look; if it is congested */
    int64_t sampled_at; /* the last look at its worker */
    int64_t avoided_at; /* since when it is not chosen because it is congested */
    enum rc_pressure_kind work; /* its worker's: RC_FREE, RC_TAKING, RC_BUSY or RC_BLOCKED */
    bool crowded, congested, hung;
};

struct rc_lane {
    struct rc_grave grave;
    struct rc_source source; /* our dup of the listening socket; events = 0, for HUP */
    struct rc_group *group;
    struct rc_worker *worker; /* NULL: the group's sink */
    struct rc_share *others;  /* further holders of a shared lane */
    uint32_t party;           /* not 0: the lane of all workers of that party */
    uint64_t inode;
    pid_t pid;       /* who has it, */
    int descriptor;  /* as which descriptor, when it was last seen: where a look begins */
    uint32_t number; /* by which programs in the kernel know it; 0: not at all */
    unsigned backlog;
    bool inherited;           /* somebody else's too: never shut down (inherited.c) */
    int64_t arrives_until_ms; /* adopted, and perhaps still on its way in a message; 0: not */
    bool deaf;                /* its worker lives, and no process of it has the lane any more */
    struct rc_pressure pressure;
    bool by_leader; /* listened on by the worker's leader, not by a child or a thread */
    bool chosen;    /* the attached program may return it */
    bool closing;   /* caller asked for no new SYN */
    bool removing;
    struct rc_taker taker; /* in dispatch */
};

/* A group's program in the kernel and what it reads (kernel_plan.c). */
struct rc_plan;
struct rc_kernel_plan {
    struct rc_plan *shared; /* NULL: there is none */
    int program;            /* descriptor; of account only where `shared` is */
    bool attached;
};

/* lanes[i] is at index i of the kernel's reuseport group: appended at listen,
 * and when one is removed the last takes its place (reuseport_detach_sock). */
struct rc_group {
    struct rc_grave grave;
    struct rc_group *next;
    struct rc_key key;
    struct sockaddr_in6 zero;
    int zero_index; /* -1: the port was asked for by number */
    struct rc_lane **lanes;
    struct rc_lane *sink;  /* one of them, or NULL */
    struct rc_lane *front; /* one of them: in dispatch; or NULL */
    struct rc_hand *hand;
    unsigned promised; /* offers by bells */
    unsigned left;     /* in the front's queue, at least: only we take from it */
    enum rc_policy policy;
    bool weighed; /* its lanes have different weights */
    bool stale;   /* pressure has changed since the last choice */
    bool flooded; /* connections come, and stay, faster than workers are looked at */
    int open;     /* what workers had open when that was last looked at, */
    int known;    /* of how many it was known; 0: not looked at yet */
    bool refused; /* the last choice could not be attached */
    int64_t steered_at;
    unsigned count, room;
    bool held;                /* where only lanes without a holder are left, the sink is better */
    struct rc_kernel *kernel; /* the engine's, or NULL */
    struct rc_kernel_plan plan;
    struct rc_udp_plan *flows; /* of a UDP group; NULL: there is none */
    unsigned flows_stay_ms;    /* 0: not to be had */
};

/* Whether turns or counts were asked for by name: then they are kept to. In auto
 * the kernel's count is one help of several, and who is congested is avoided. */
static inline bool rc_group_exact(const struct rc_group *group)
{
    return group->kernel && group->policy != RC_BALANCE_AUTO;
}

/* Whether each worker has a part that was asked for. */
static inline bool rc_group_has_parts(const struct rc_group *group)
{
    return group->policy == RC_BALANCE_WEIGHTED || group->weighed || rc_group_exact(group);
}

struct rc_engine;

/* One trapped bind or listen, however it came. */
struct rc_call {
    struct rc_worker *worker;
    pid_t pid;
    int number; /* the descriptor's number in that process */
    int fd;     /* our dup of it */
    struct sockaddr_in6 address;
    socklen_t length;
    int backlog;
    struct sockaddr_un path; /* instead of address, for AF_UNIX */
    socklen_t path_length;
};

/* A call that is answered in a later turn, and how. */
struct rc_later {
    uint64_t notice;               /* of the worker's door, or */
    struct rc_shim_caller *caller; /* the shim that asked; neither: nobody waits any more */
};

struct rc_unix_lane;
struct rc_answer {
    struct rc_later *later; /* not now: the door writes there how to answer */
    bool pass;              /* let the kernel do it as if nobody had looked */
    int result;             /* 0 or -errno */
    int replace;            /* a descriptor to put in place of theirs, or -1 */
    bool owned;             /* replace is the answer's own, to close after use */
    struct rc_lane *adopted;
    struct rc_worker *previous;  /* who had it; of a shared lane: who joins */
    struct rc_unix_lane *joined; /* AF_UNIX: by joiner, who was not in it before */
    struct rc_worker *joiner;
};

/* sockets.c */
int rc_socket_get(int fd, int level, int name);
int rc_socket_set(int fd, int level, int name, int value);
bool rc_socket_readable(int fd);
unsigned rc_backlog_for(int asked);
uint64_t rc_socket_inode(int fd);
int rc_socket_name(int fd, struct sockaddr_in6 *out);
int rc_address_canonical(const struct sockaddr_in6 *from, socklen_t length,
                         struct sockaddr_in6 *out);
socklen_t rc_address_length(const struct sockaddr_in6 *address);
void rc_address_text(const struct sockaddr_in6 *address, char *out, size_t room);
int rc_key_of(int fd, const struct sockaddr_in6 *address, struct rc_key *key);
void rc_key_text(const struct rc_key *key, char *out, size_t room);
bool rc_same_place(const struct rc_key *a, const struct rc_key *b);

/* pending.c */
void rc_pending_add(struct rc_worker *worker, const struct rc_pending *pending);
void rc_pending_delete(struct rc_worker *worker, unsigned at);
struct rc_pending *rc_pending_find(struct rc_worker *worker, uint64_t inode);
bool rc_pending_elsewhere(struct rc_engine *engine, const struct rc_key *key);
int rc_zero_index(struct rc_worker *worker, const struct sockaddr_in6 *asked);
in_port_t rc_zero_port(struct rc_engine *engine, const struct rc_worker *worker,
                       const struct sockaddr_in6 *asked, int index);
void rc_zero_listened(struct rc_worker *worker, const struct rc_pending *pending);

/* bind.c, listen.c */
void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *call,
                     struct rc_answer *answer);
void rc_lanes_refused(struct rc_answer *answer);
struct rc_lane *rc_orphan_for(struct rc_engine *engine, const struct rc_worker *heir,
                              const struct rc_key *key);
int rc_adopt(struct rc_engine *engine, const struct rc_call *call, struct rc_lane *lane,
             bool passes, struct rc_answer *answer);

/* inherited.c */
bool rc_inherited_bind(struct rc_engine *engine, const struct rc_call *call,
                       const struct sockaddr_in6 *address, struct rc_answer *answer);
void rc_inherited_fit(struct rc_engine *engine, int fd, struct rc_key *key);

/* unix.c, unixdoor.c, unixplace.c, unixerrand.c: AF_UNIX listeners */
struct rc_unix_errand;
void rc_unix_errand_ended(struct rc_engine *engine, struct rc_source *source);
enum { RC_NETLINK_LENGTH = 12 };
void rc_unix_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
bool rc_unix_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
void rc_unix_refused(const struct rc_answer *answer);
int rc_unix_resteer(struct rc_engine *engine);
void rc_unix_close(struct rc_engine *engine);
void rc_unix_noticed(struct rc_engine *engine);
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer);
void rc_unix_exited(struct rc_engine *engine, const struct rc_worker *worker);
void rc_unix_drop(struct rc_engine *engine, const struct rc_worker *worker);
unsigned rc_unix_queued(struct rc_engine *engine, const struct rc_worker *worker);
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker);
size_t rc_unix_lanes(const struct rc_engine *engine, struct rc_lane_facts *out, size_t room,
                     size_t count);
void rc_unix_free(struct rc_engine *engine);
void rc_unix_close_all(const struct rc_engine *engine);

/* udpsocket.c */
bool rc_udp_connected(int fd);
void rc_udp_leave_groups(int fd);
void rc_udp_empty(int fd);

/* udp.c, udpflow.c */
struct rc_choice;
struct sock_filter;
void rc_udp_bind(struct rc_engine *engine, const struct rc_call *call,
                 const struct sockaddr_in6 *address, struct rc_answer *answer);
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room);
int rc_udp_attach(int fd, const struct rc_choice *choices, unsigned count);
unsigned rc_udp_owner(const struct rc_choice *choices, unsigned count, uint32_t bucket);

/* udpkernel.c */
struct rc_udp_plan;
int rc_udp_steer(struct rc_group *group, const struct rc_choice *choices, unsigned count);
void rc_udp_forget(struct rc_group *group, struct rc_lane *lane);
void rc_udp_plan_close(const struct rc_udp_plan *plan);
void rc_udp_plan_free(struct rc_group *group);

/* groups.c */
struct rc_group *rc_group_find(struct rc_engine *engine, const struct rc_key *key);
struct rc_group *rc_group_new(struct rc_engine *engine, const struct rc_key *key);
void rc_lane_init(struct rc_lane *lane);
int rc_group_append(struct rc_group *group, struct rc_lane *lane);
struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode);
struct rc_worker *rc_nobody(struct rc_engine *engine);

/* descriptor.c */
pid_t rc_process_of(pid_t thread);
int rc_take_descriptor(const struct rc_worker *worker, pid_t process, int number);
int rc_take_of_thread(const struct rc_worker *worker, pid_t thread, int number);
bool rc_is_same_file(pid_t thread, int number, int ours);

/* lanes.c */
void rc_group_add_sink(struct rc_engine *engine, struct rc_group *group);
void rc_group_free_if_empty(struct rc_engine *engine, struct rc_group *group);
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane);
void rc_lanes_shut(struct rc_engine *engine, struct rc_lane *lane);
int rc_lane_vacate(struct rc_engine *engine, struct rc_lane *lane);
int rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker);
int rc_lanes_resteer(struct rc_engine *engine);

/* choosing.c */
unsigned rc_lane_index(const struct rc_lane *lane);
bool rc_group_choose(struct rc_group *group);
int rc_group_attach(struct rc_group *group, unsigned limit);
int rc_group_steer(struct rc_group *group);
int rc_group_refresh(struct rc_group *group);

/* deaf.c */
void rc_lane_arrives(struct rc_lane *lane);
int rc_lane_held(struct rc_lane *lane);
bool rc_lane_is_deaf(struct rc_engine *engine, struct rc_lane *lane);
void rc_lane_shut_down(struct rc_engine *engine, const struct rc_lane *lane);

/* sharing.c */
enum rc_level { RC_LEVEL_NEVER, RC_LEVEL_ORPHAN, RC_LEVEL_LIVE };
enum rc_level rc_lane_level(const struct rc_lane *lane);
double rc_lane_weight(const struct rc_lane *lane);
bool rc_lane_held_by(const struct rc_lane *lane, const struct rc_worker *worker);
bool rc_lane_has_others(const struct rc_lane *lane, const struct rc_worker *worker);
bool rc_lane_all_dead(const struct rc_lane *lane);
bool rc_lane_owed(const struct rc_lane *lane, const struct rc_worker *worker);
unsigned rc_lane_holders(const struct rc_lane *lane);
int rc_lane_join(struct rc_lane *lane, struct rc_worker *worker);
bool rc_lane_leave(struct rc_lane *lane, const struct rc_worker *worker);
void rc_lane_unshare(struct rc_lane *lane);
struct rc_lane *rc_lane_of_party(struct rc_group *group, uint32_t party);
bool rc_shares_live(const struct rc_engine *engine, const struct rc_worker *worker);

/* pressure.c */
enum { RC_STARVED_US = 75000 }; /* whose queue stands still for less may only lack a CPU */
unsigned rc_lane_queued(const struct rc_lane *lane, unsigned *limit);
unsigned rc_listener_queued(int fd);
enum rc_pressure_kind rc_lane_pressure(const struct rc_lane *lane);
bool rc_lane_stuck(const struct rc_lane *lane);
int64_t rc_lane_judged_us(const struct rc_lane *lane);
bool rc_lane_watched(const struct rc_lane *lane);
bool rc_lane_judged(const struct rc_engine *engine, const struct rc_lane *lane);
bool rc_group_any_free(const struct rc_group *group);
void rc_lane_chosen(struct rc_lane *lane, bool chosen);
void rc_lane_calm(struct rc_lane *lane);

/* congestion.c */
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane);
void rc_group_watch(struct rc_engine *engine, struct rc_group *group);
void rc_lanes_sweep(struct rc_engine *engine);

/* crowd.c */
int rc_crowd_names(const char *path);
int64_t rc_crowd_look(struct rc_engine *engine);
void rc_crowd_end(struct rc_engine *engine);

/* haste.c */
void rc_haste(struct rc_engine *engine, bool wanted);
void rc_haste_child(const struct rc_engine *engine);

/* vigil.c */
bool rc_vigil_on(const struct rc_engine *engine, int64_t now);
void rc_vigil_begin(struct rc_engine *engine, int64_t now);
bool rc_vigil_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now);

/* doing.c */
enum rc_doing {
    RC_DOING_UNKNOWN,
    RC_DOING_WAIT, /* for connections */
    RC_DOING_WORK,
};
enum rc_doing rc_worker_doing(struct rc_worker *worker);

/* text.c */
struct sock_filter;
enum { RC_PROGRAM_MAX = 4096 };
/* A program that is being written: no more than `room` of it is kept. */
struct rc_text {
    struct sock_filter *out;
    unsigned length, room;
};
/* What the accumulator leads to, from `first` up to the next leaf's. */
struct rc_leaf {
    uint32_t first;
    unsigned index;
};
void rc_text_add(struct rc_text *text, uint16_t code, uint32_t k);
void rc_text_search(struct rc_text *text, const struct rc_leaf *leaves, unsigned count);

/* steering.c; the choice by weights in weighted.c, by address in sticky.c */
struct rc_choice {
    unsigned index;  /* position in the group */
    uint32_t worker; /* equal numbers share one worker's part */
    uint32_t slot;   /* for source_ip: equal numbers share one slot's part */
    double weight;   /* the worker's part; where all are equal none need be given */
};
int rc_steering_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_weighted_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_sticky_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                    unsigned room);
/* Connections from this source port go to this index. */
struct rc_detour {
    in_port_t port; /* host order */
    unsigned index;
};
enum { RC_DETOUR_LENGTH = 8 };
int rc_steering_attach(int fd, enum rc_policy policy, const struct rc_choice *choices,
                       unsigned count, const struct rc_detour *detour);

/* sink.c */
int rc_sibling_listen(const struct rc_key *key, int lane, int backlog);
int rc_client_at(const struct rc_key *key, in_port_t port);
void rc_reachable(const struct rc_key *key, struct sockaddr_in6 *to);
int rc_sink_listen(const struct rc_key *key, int lane);
int rc_sink_client(const struct rc_key *key, in_port_t *port);
int rc_sink_fill(int sink, int client, const struct rc_key *key);

/* kernel.c, kernel_plan.c: steering by eBPF, where that is allowed */
int rc_kernel_steer(struct rc_group *group);
void rc_kernel_forget(struct rc_group *group, struct rc_lane *lane);
void rc_kernel_plan_free(struct rc_kernel_plan *plan);
void rc_kernel_close(struct rc_engine *engine);
int rc_kernel_connections(const struct rc_lane *lane);

/* ---- doors ------------------------------------------------------------------ */

/* answers.c */
struct rc_shim_caller;
void rc_notify_reply(int door, uint64_t id, bool pass, int result);
int rc_shim_reply(int socket, const struct rc_answer *answer, int replace);
void rc_caller_free(struct rc_engine *engine, struct rc_shim_caller *caller);
void rc_later_answer(struct rc_engine *engine, const struct rc_worker *worker,
                     struct rc_later *later, int result);

/* What of a worker is trapped beside bind and listen. */
enum rc_traps { RC_TRAP_BINDS = 0, RC_TRAP_ACCEPTS = 1, RC_TRAP_UNLINKS = 2 };
int rc_notify_install(unsigned traps);
int rc_notify_receive(struct rc_engine *engine, struct rc_worker *worker);

struct rc_shim {
    struct rc_source port;
    char name[64];
    uint64_t token;
    bool starved; /* no descriptor was left for a caller */
};
void rc_shim_accept(struct rc_engine *engine);
void rc_shim_call(struct rc_engine *engine, struct rc_source *source);
void rc_shim_shut(struct rc_engine *engine);
void rc_later_forget(struct rc_engine *engine, const struct rc_shim_caller *caller);

/* ---- engine ------------------------------------------------------------------ */

struct rc_output {
    struct rc_event *events;
    size_t count, room;
};

struct rc_shim_caller {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_shim_caller *next;
    pid_t pid;
    uid_t uid;
};

/* While requests take so long that it matters whether a worker is at work;
 * microseconds. */
struct rc_vigil {
    int64_t until;      /* 0: no vigil */
    int64_t look_at;    /* the next one at workers */
    int64_t stirred_at; /* when a worker last went to work */
    int64_t counted_at; /* the connections of the whole network namespace: */
    uint64_t opened;
};

struct rc_watch {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_watch *next;
};

struct rc_engine {
    int epoll;
    unsigned flags;
    struct rc_source timer, sweep, signals;
    int64_t sweep_at; /* the sweep timer, us; 0: not set */
    struct rc_vigil vigil;
    bool hasty, sweeping;
    int64_t crowd_at, crowd_until; /* the next look of crowd.c, us, 0: none; and the last */
    sigset_t signal_set, mask_before;
    bool masked;
    bool limited; /* RLIMIT_NOFILE was raised from: */
    struct rlimit limit_before;
    bool orphans; /* a child that is not a worker may wait to be reaped */
    int64_t deadline_ms;
    bool hurried; /* the timer was set to now because lines wait in a buffer */
    struct rc_guard guard;
    struct rc_worker *workers;
    struct rc_worker *nobody; /* has the lanes that no worker has yet (inherited.c); or NULL */
    struct rc_group *groups;
    struct rc_unix_group *unixes;
    struct rc_unix_errand *errands;
    struct rc_source unix_watch; /* inotify, or -1 */
    bool expects_paths;          /* workers will bind AF_UNIX paths */
    enum rc_policy policy;
    struct rc_kernel *kernel; /* NULL: no steering by eBPF */
    unsigned flows_stay_ms;   /* UDP flows of who retires; 0: not at all */
    struct rc_watch *watches;
    struct rc_shim shim;
    struct rc_shim_caller *callers;
    struct rc_grave *graves;
    struct rc_dispatch dispatch;
    int diag;            /* netlink socket, or -1 */
    uint32_t diag_asked; /* number of the last question */
    unsigned turn;
    struct rc_output *output; /* where events go while rc_wait runs */
    char texts[64][128];      /* addresses of this turn's listening events */
    unsigned text_count;
};

void rc_descriptors_restore(const struct rc_engine *engine);
struct rc_worker *rc_find(struct rc_engine *engine, uint32_t id);
void rc_emit(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
             const char *text, size_t length);
void rc_emit_place(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                   const char *place);
void rc_emit_key(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                 const struct rc_key *key);
void rc_bury(struct rc_engine *engine, void *memory); /* begins with a grave */
void rc_free_graves(struct rc_engine *engine);
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker);
void rc_worker_departed(struct rc_engine *engine, struct rc_worker *worker);
int rc_guard_renew(struct rc_engine *engine);
void rc_reap_orphans(struct rc_engine *engine);
int rc_send_descriptor(int socket, const void *bytes, size_t length, int fd);
ssize_t rc_receive_descriptor(int socket, void *bytes, size_t length, int *fd);

#endif
