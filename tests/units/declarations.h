/* declarations.h - what the unit tests see of csrc and faults.c, for cffi.
 *
 * "..." lets the C compiler fill in the rest, so that only what a test names
 * has to agree with csrc/*.h.
 */
typedef int... pid_t;
typedef int... uid_t;
typedef int... socklen_t;
typedef int... in_port_t;
typedef ... rc_engine;

#define RC_LINE_MAX ...
#define RC_STATUS_UNKNOWN ...
#define RC_SEND_MAX ...
#define RC_EVENTS_MIN ...
#define RC_PROGRAM_MAX ...
#define RC_PENDING_MAX ...
#define RC_STARVED_US ...
#define RC_SUBREAPER ...
#define RC_HELLO_MAGIC ...

enum rc_event_kind {
    RC_EVENT_DEADLINE, RC_EVENT_READABLE, RC_EVENT_DOOR, RC_EVENT_LISTENING,
    RC_EVENT_DEAF, RC_EVENT_ACCEPTING, RC_EVENT_MESSAGE, RC_EVENT_GARBLED, RC_EVENT_EXIT, RC_EVENT_GONE,
    RC_EVENT_HUNG, RC_EVENT_TAKES, RC_EVENT_BLIND, ...
};
enum rc_policy {
    RC_BALANCE_AUTO, RC_BALANCE_REUSEPORT, RC_BALANCE_SHARED, RC_BALANCE_SOURCE_IP,
    RC_BALANCE_WEIGHTED, RC_BALANCE_ROUND_ROBIN, RC_BALANCE_LEAST_CONNECTIONS, ...
};
int rc_balance(rc_engine *engine, enum rc_policy policy);
int rc_flows_stay(rc_engine *engine, unsigned ms);
int rc_balance_kernel(rc_engine *engine, const char **refused);
int rc_balance_dispatch(rc_engine *engine);
enum rc_door_kind { RC_DOOR_NOTIFY, RC_DOOR_PRELOAD, ... };
struct rc_event {
    enum rc_event_kind kind;
    uint32_t worker;
    int value;
    const char *text;
    size_t length;
    ...;
};

/* engine */
int rc_engine_new(rc_engine **out, unsigned flags);
void rc_engine_free(rc_engine *engine);
void rc_engine_abandon(rc_engine *engine);
int rc_engine_fd(const rc_engine *engine);
int rc_signal_handled(rc_engine *engine, int number);
void rc_reap(rc_engine *engine);
int rc_deadline(rc_engine *engine, int64_t at_ms);
int rc_descriptors(rc_engine *engine, unsigned wanted);
int rc_watch(rc_engine *engine, int fd);
int rc_unwatch(rc_engine *engine, int fd);
int rc_wait(rc_engine *engine, struct rc_event *events, size_t room, int timeout_ms);
int rc_door_probe(const char **refused);
int rc_shim_open(rc_engine *engine);
int rc_shim_address(const rc_engine *engine, uint32_t worker, char *out, size_t room);

/* workers */
struct rc_program {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *cwd;
    ...;
};
int rc_worker_new(rc_engine *engine, uint32_t worker, uint32_t heir_of, int *channel_fd);
int rc_worker_heir(rc_engine *engine, uint32_t worker, uint32_t heir_of);
int rc_worker_place(rc_engine *engine, uint32_t worker, uint32_t slot, uint32_t party,
                    uint32_t generation);
pid_t rc_worker_exec(rc_engine *engine, uint32_t worker, enum rc_door_kind door,
                     const struct rc_program *program);
int rc_worker_stop(rc_engine *engine, uint32_t worker, int number);
int rc_worker_server(rc_engine *engine, uint32_t worker);
int rc_worker_heard(rc_engine *engine, uint32_t worker);
int rc_worker_signal(rc_engine *engine, uint32_t worker, int number);
int rc_worker_kill(rc_engine *engine, uint32_t worker);
int rc_poll(int fd, short events, int64_t until_us);
int rc_take_descriptor(const struct rc_worker *worker, pid_t process, int number);
int rc_worker_send(rc_engine *engine, uint32_t worker, const char *line, size_t length);
int rc_worker_release(rc_engine *engine, uint32_t worker);

enum rc_pressure_kind { RC_FREE, RC_TAKING, RC_BUSY, RC_CROWDED, RC_BLOCKED, RC_CONGESTED, RC_HUNG, ... };
struct rc_lane_facts {
    uint32_t worker;
    unsigned holders;
    int chosen, pressure;
    unsigned queued, backlog;
    char address[128];
    int connections;
    ...;
};
struct rc_live { uint32_t worker; double weight; ...; };
int rc_steer(rc_engine *engine, const struct rc_live *live, size_t count);
int rc_close_lanes(rc_engine *engine, uint32_t worker);
int rc_queued(rc_engine *engine, uint32_t worker);
int rc_deaf(rc_engine *engine, uint32_t worker);
int rc_prove(rc_engine *engine);
void rc_readers_rest(rc_engine *engine);
int rc_hold(rc_engine *engine, const char *address, int on);
int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room);
struct rc_place { char address[128]; unsigned listeners; int unsure; ...; };
int rc_shared(rc_engine *engine, struct rc_place *out, size_t room);

/* what its files share */
struct rc_source { int fd; uint32_t armed; ...; };
void rc_close(int *fd);

struct rc_buffer { size_t start, end, room; ...; };
struct rc_channel { struct rc_buffer in, out; bool discarding, finished; ...; };
struct rc_hello { uint32_t magic; int32_t error; ...; };
int rc_channel_greet(int fd, int door, int error);
int rc_channel_hello(int fd, struct rc_hello *hello, int *door);
int rc_channel_read(struct rc_channel *channel, int fd);
int rc_channel_line(struct rc_channel *channel, const char **line, size_t *length);
bool rc_channel_has_line(const struct rc_channel *channel);
int rc_channel_send(struct rc_channel *channel, int fd, const char *line, size_t length);
int rc_channel_flush(struct rc_channel *channel, int fd);
void rc_channel_free(struct rc_channel *channel);

struct rc_guard { struct rc_source source; pid_t pid; int line; bool stale; ...; };
struct rc_guarded { struct rc_asked *asked; pid_t *group; int *door; size_t groups, doors; };
int rc_guard_start(struct rc_guard *guard, int epoll, const struct rc_guarded *known);
int rc_guard_add(struct rc_guard *guard, pid_t group);
int rc_guard_remove(struct rc_guard *guard, pid_t group);
int rc_guard_door(struct rc_guard *guard, int door);
bool rc_guard_takes(const struct rc_guard *guard);
void rc_guard_leave(struct rc_guard *guard, int epoll);
void rc_guard_stop(struct rc_guard *guard, int epoll);

struct sockaddr_in6 { in_port_t sin6_port; ...; };
struct sockaddr_un { ...; };
struct rc_worker {
    uint32_t id;
    pid_t pid;
    int hung_queued;
    bool live, dead, seen_waiting, inscrutable, receives;
    unsigned pendings, hung_lanes, open;
    uint64_t given, forgiven, accepted;
    int64_t cpu_us;
    uint32_t generation;
    ...;
};
enum rc_activity { RC_ACTIVITY_UNKNOWN, RC_ACTIVITY_WAIT, RC_ACTIVITY_WORK, ... };
enum rc_activity rc_worker_activity(struct rc_worker *worker);
struct rc_call {
    struct rc_worker *worker;
    pid_t pid;
    int number, fd;
    struct sockaddr_in6 address;
    socklen_t length;
    int backlog;
    struct sockaddr_un path;
    socklen_t path_length;
    ...;
};
struct rc_later {
    void (*answer)(struct rc_engine *, const struct rc_worker *, const struct rc_later *, _Bool, int);
    ...;
};
struct rc_answer {
    struct rc_later *later;
    bool pass;
    int result, replace;
    bool owned;
    ...;
};
struct rc_output { struct rc_event *events; size_t count, room; ...; };
struct rc_key { ...; };
struct rc_receiver { struct rc_source pair; bool offered, late; ...; };
struct rc_pressure {
    unsigned interval, hot;
    int64_t still_us;
    int open;
    int64_t armed_at;
    enum rc_pressure_kind work;
    bool crowded, congested, hung;
    ...;
};
struct rc_stall { int arrivals; uint64_t ran_ns; ...; };
struct rc_lane {
    struct rc_source source;
    struct rc_worker *worker;
    uint32_t number;
    uint64_t counted;
    int64_t arrives_until_ms;
    bool deaf, chosen, by_leader;
    struct rc_pressure pressure;
    struct rc_stall stall;
    struct rc_receiver receiver;
    ...;
};
struct rc_tally { uint32_t established, stirred; ...; };
struct rc_kernel { struct rc_tally *tallies; ...; };
struct rc_side { uint32_t workers, lanes, sink; uint32_t entry[...]; ...; };
struct rc_plan { uint64_t version, cursor; struct rc_side side[2]; ...; };
struct rc_kernel_plan { struct rc_plan *shared; int program; bool attached; ...; };
struct rc_accepted { struct rc_accepted *next; int fd; struct sockaddr_in6 peer; ...; };
int rc_pass_receive(int theirs, struct rc_accepted *out);
int rc_ring_open(rc_engine *engine);
void rc_accepted_keep(struct rc_group *group, const struct rc_accepted *accepted);
void rc_handout_run(struct rc_engine *engine, struct rc_group *group);
struct rc_group {
    struct rc_key key;
    bool flooded;
    struct rc_accepted *undelivered;
    struct rc_lane **lanes, *sink, *front;
    unsigned count, flows_stay_ms;
    bool stale;
    struct rc_kernel_plan plan;
    ...;
};
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane);
void rc_polling_begin(struct rc_engine *engine, int64_t now);
bool rc_polling_on(const struct rc_engine *engine, int64_t now);
bool rc_polling_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now);
int rc_imbalance_names(const char *path);
int64_t rc_imbalance_look(struct rc_engine *engine);
void rc_imbalance_end(struct rc_engine *engine);
void rc_slice_short(struct rc_engine *engine, bool wanted);
enum rc_waiting { RC_WAITS_IDLE, RC_WAITS_BUSY, RC_WAITS_THERE };
int rc_waiters_look(struct rc_engine *engine, const struct rc_worker *worker, uint64_t inode);
bool rc_lane_hangs(struct rc_lane *lane, unsigned queued, int64_t now);
bool rc_wants_cpu(pid_t process, uint64_t *ran_ns);
int64_t rc_now_us(void);
struct rc_engine {
    int epoll, diag;
    int64_t sweep_at, imbalance_at;
    struct rc_guard guard;
    struct rc_group *groups;
    struct rc_kernel *kernel;
    struct rc_output *output;
    unsigned text_count;
    ...;
};
struct rc_worker *rc_find(struct rc_engine *engine, uint32_t id);
void rc_lanes_refused(struct rc_answer *answer);
void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer);
void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *call,
                     struct rc_answer *answer);
int rc_lanes_resteer(struct rc_engine *engine);
int rc_group_attach(struct rc_group *group, unsigned limit);
#define RC_NOTE_MAX ...
struct rc_stored {
    uint64_t inode;
    int fd;
};
int rc_stored_lanes(rc_engine *engine, struct rc_stored *out, size_t room);
int rc_stored_note(const rc_engine *engine, uint64_t inode, char *text, size_t room);
int rc_restore(rc_engine *engine, int fd, const char *note, char *text, size_t room);
int rc_restored(rc_engine *engine);
int rc_inherit(rc_engine *engine, int fd, int ours, char *text, size_t room);
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer);
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker);
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker);
int rc_lane_held(struct rc_lane *lane);
bool rc_lane_is_deaf(struct rc_engine *engine, struct rc_lane *lane);
enum rc_traps { RC_TRAP_BINDS, RC_TRAP_UNLINKS, ... };
int rc_notify_install(unsigned traps);

/* steering.c */
struct sock_filter { uint16_t code; uint8_t jt, jf; uint32_t k; };
struct rc_choice { unsigned index; uint32_t worker, slot; double weight; ...; };
int rc_steering_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_weighted_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_sticky_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                    unsigned room);
struct rc_detour { in_port_t port; unsigned index; ...; };
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room);
int rc_steering_attach(int fd, enum rc_policy policy, const struct rc_choice *choices,
                       unsigned count, const struct rc_detour *detour);

/* faults.c */
void fault_arm(int n, int error, const char *name, long number, int sticky);
int fault_disarm(void);
const char *fault_last(void);
int fault_answer(int *result);
void fault_later(struct rc_engine *, const struct rc_worker *, const struct rc_later *, _Bool, int);
int fault_bad_closes(void);
void fault_hook(void (*function)(const char *));

/* facts.c */
struct rc_drain_facts { int connections, owing, quiet_ms, half_open; unsigned queued; ...; };
void rc_file_pages_forget(void);
struct rc_flows { size_t count; ...; };
void rc_flows_free(struct rc_flows *flows);
int rc_drain_flows(struct rc_engine *engine, struct rc_worker *worker, struct rc_flows *out);
int rc_drain_begin(rc_engine *engine, const uint32_t *workers, size_t count);
int rc_drain_look(rc_engine *engine, uint32_t worker, struct rc_drain_facts *out);

/* portfilter.c */
#define RC_PORTS_MAX ...
struct inet_diag_bc_op { unsigned char code, yes; unsigned short no; };
void free(void *memory);
int rc_portfilter(const in_port_t *ports, size_t count, struct inet_diag_bc_op **text);
struct rc_counts { int64_t cpu_us, accepted; int connections; ...; };
int rc_counts(rc_engine *engine, uint32_t worker, struct rc_counts *out);
void rc_counts_note(struct rc_lane *lane);
void rc_counts_forgive(struct rc_worker *worker, uint64_t least);
