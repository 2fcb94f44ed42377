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
#define RC_SEND_MAX ...
#define RC_EVENTS_MIN ...
#define RC_PROGRAM_MAX ...
#define RC_PENDING_MAX ...
#define RC_STARVED_US ...
#define RC_SUBREAPER ...
#define RC_HELLO_MAGIC ...

enum rc_event_kind {
    RC_EVENT_SIGNAL, RC_EVENT_DEADLINE, RC_EVENT_READABLE, RC_EVENT_DOOR, RC_EVENT_LISTENING,
    RC_EVENT_DEAF, RC_EVENT_MESSAGE, RC_EVENT_GARBLED, RC_EVENT_EXIT, RC_EVENT_GONE,
    RC_EVENT_HUNG, RC_EVENT_TAKES, ...
};
enum rc_policy {
    RC_BALANCE_AUTO, RC_BALANCE_REUSEPORT, RC_BALANCE_SHARED, RC_BALANCE_SOURCE_IP,
    RC_BALANCE_WEIGHTED, RC_BALANCE_ROUND_ROBIN, RC_BALANCE_LEAST_CONNECTIONS, ...
};
struct rc_connection { int fd, family; unsigned port; ...; };
int rc_receive_connection(int fd, struct rc_connection *out);
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
int rc_signals(rc_engine *engine, const int *numbers, size_t count);
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
int rc_worker_place(rc_engine *engine, uint32_t worker, uint32_t slot, uint32_t party,
                    uint32_t generation);
pid_t rc_worker_exec(rc_engine *engine, uint32_t worker, enum rc_door_kind door,
                     const struct rc_program *program);
int rc_worker_signal(rc_engine *engine, uint32_t worker, int number);
int rc_worker_kill(rc_engine *engine, uint32_t worker);
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
int rc_hold(rc_engine *engine, const char *address, int on);
int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room);

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

struct rc_guard { struct rc_source source; pid_t pid; int pipe; ...; };
int rc_guard_start(struct rc_guard *guard, int epoll);
int rc_guard_add(const struct rc_guard *guard, pid_t group);
int rc_guard_remove(const struct rc_guard *guard, pid_t group);
void rc_guard_stop(struct rc_guard *guard, int epoll);

struct sockaddr_in6 { ...; };
struct sockaddr_un { ...; };
struct rc_worker {
    uint32_t id;
    pid_t pid;
    bool live, dead, seen_waiting, inscrutable;
    unsigned pendings, hung_lanes, open, promised;
    uint64_t given;
    uint32_t generation;
    ...;
};
enum rc_doing { RC_DOING_UNKNOWN, RC_DOING_WAIT, RC_DOING_WORK, ... };
enum rc_doing rc_worker_doing(struct rc_worker *worker);
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
struct rc_later { uint64_t notice; ...; };
struct rc_answer {
    struct rc_later *later;
    bool pass;
    int result, replace;
    bool owned;
    ...;
};
struct rc_output { struct rc_event *events; size_t count, room; ...; };
struct rc_key { ...; };
struct rc_bell { int fd; in_port_t port; bool rung; ...; };
struct rc_held { struct rc_held *next; uint64_t id; pid_t thread; ...; };
bool rc_is_same_file(pid_t thread, int number, int ours);
struct rc_taker { struct rc_bell bell; struct rc_held *held; bool offered, late; ...; };
struct rc_pressure {
    unsigned interval, hot;
    int64_t still_us;
    int open;
    int64_t armed_at;
    enum rc_pressure_kind work;
    bool crowded, congested;
    ...;
};
struct rc_lane {
    struct rc_source source;
    struct rc_worker *worker;
    uint32_t number;
    int64_t arrives_until_ms;
    bool deaf, chosen, by_leader;
    struct rc_pressure pressure;
    struct rc_taker taker;
    ...;
};
struct rc_tally { uint32_t established, stirred; ...; };
struct rc_kernel { struct rc_tally *tallies; ...; };
struct rc_side { uint32_t workers, lanes, sink; uint32_t entry[...]; ...; };
struct rc_plan { uint64_t version, cursor; struct rc_side side[2]; ...; };
struct rc_kernel_plan { struct rc_plan *shared; int program; bool attached; ...; };
struct rc_hand { struct rc_hand *next; int fd; ...; };
struct rc_group {
    struct rc_key key;
    bool flooded;
    struct rc_hand *hand;
    struct rc_lane **lanes, *sink, *front;
    unsigned count, promised, flows_stay_ms;
    bool stale;
    struct rc_kernel_plan plan;
    ...;
};
int rc_held_keep(struct rc_lane *lane, const struct rc_held *held);
void rc_accept_forget(struct rc_lane *lane);
int rc_bell_ring(struct rc_bell *bell, const struct rc_key *key);
int rc_bell_silence(struct rc_bell *bell, int lane, struct rc_hand *stranger);
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane);
void rc_vigil_begin(struct rc_engine *engine, int64_t now);
bool rc_vigil_on(const struct rc_engine *engine, int64_t now);
bool rc_vigil_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now);
int rc_crowd_names(const char *path);
int64_t rc_crowd_look(struct rc_engine *engine);
void rc_crowd_end(struct rc_engine *engine);
void rc_haste(struct rc_engine *engine, bool wanted);
bool rc_wants_cpu(pid_t thread, bool children, uint64_t *ran_ns);
int64_t rc_now_us(void);
struct rc_engine {
    int epoll;
    int64_t sweep_at, crowd_at;
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
int rc_inherit(rc_engine *engine, int fd, int ours);
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer);
int rc_unix_connections(const struct rc_engine *engine, const struct rc_worker *worker);
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker);
int rc_lane_held(struct rc_lane *lane);
bool rc_lane_is_deaf(struct rc_engine *engine, struct rc_lane *lane);
enum rc_traps { RC_TRAP_BINDS, RC_TRAP_ACCEPTS, RC_TRAP_UNLINKS, ... };
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
int fault_bad_closes(void);
void fault_hook(void (*function)(const char *));

/* facts.c */
struct rc_drain_facts { int connections, owing, quiet_ms, half_open; unsigned queued; ...; };
int rc_drain_begin(rc_engine *engine, const uint32_t *workers, size_t count);
int rc_drain_look(rc_engine *engine, uint32_t worker, struct rc_drain_facts *out);
