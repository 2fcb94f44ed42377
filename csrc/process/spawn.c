/* spawn.c - a worker's process: birth, messages, death.
 *
 * Owns: fork, what happens in the child before user code, pidfds, reaping.
 * Invariants:
 *  - a process is signalled through its pidfd, or through its group while its
 *    leader is not reaped: never by a number that could be somebody else's;
 *  - the order of a death is: status seen (WNOWAIT), group killed, guard told,
 *    reaped, channel emptied, exit event;
 *  - between fork and the return into Python, or exec, only system calls: the
 *    program that embeds us may have threads that held any lock.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int rc_worker_new(rc_engine *engine, uint32_t id, uint32_t heir_of, int *channel_fd)
{
    int ends[2] = {-1, -1};
    if (id == 0 || rc_find(engine, id))
        return -EEXIST;
    struct rc_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return -ENOMEM;
    worker->id = id;
    worker->heir_of = heir_of;
    (void)clock_gettime(CLOCK_REALTIME, &worker->born);
    worker->weight = 1;
    worker->output[0] = worker->output[1] = -1;
    worker->process.fd = worker->door.fd = worker->channel_source.fd = -1;
    rc_procfiles_begin(worker);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        int error = -errno;
        free(worker);
        return error;
    }
    int error =
        rc_source_add(engine->epoll, &worker->channel_source, RC_SOURCE_CHANNEL, ends[0], EPOLLIN);
    if (error) {
        close(ends[0]);
        close(ends[1]);
        free(worker);
        return error;
    }
    worker->child_channel = ends[1];
    worker->channel.held = true;
    worker->channel_inode = rc_socket_inode(ends[1]);
    worker->next = engine->workers;
    engine->workers = worker;
    *channel_fd = ends[1];
    return 0;
}

int rc_worker_heir(rc_engine *engine, uint32_t id, uint32_t heir_of)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker)
        return -ENOENT;
    /* The chain of heirs is walked to its end: it must have one. */
    for (const struct rc_worker *dead = rc_find(engine, heir_of); dead;
         dead = rc_find(engine, dead->heir_of))
        if (dead == worker)
            return -ELOOP;
    worker->heir_of = heir_of;
    return 0;
}

int rc_worker_place(rc_engine *engine, uint32_t id, uint32_t slot, uint32_t party,
                    uint32_t generation)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker)
        return -ESRCH;
    if (slot >= RC_SLOTS_MAX)
        return -EINVAL;
    worker->slot = slot;
    worker->party = party;
    worker->generation = generation;
    return 0;
}

static void worker_free(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_worker **link = &engine->workers;
    while (*link != worker)
        link = &(*link)->next;
    *link = worker->next;
    engine->orphans |= worker->asked;
    rc_source_shut(engine->epoll, &worker->channel_source);
    rc_source_shut(engine->epoll, &worker->process);
    rc_source_shut(engine->epoll, &worker->door);
    rc_close(&worker->child_channel);
    rc_output_close(worker);
    rc_procfiles_end(worker);
    rc_channel_free(&worker->channel);
    rc_drain_free(&worker->drain);
    rc_bury(engine, worker);
}

/* ---- in the child ------------------------------------------------------------ */

/* A background process group that reads the terminal is stopped (SIGTTIN). */
static void child_stdin(void)
{
    if (!isatty(STDIN_FILENO))
        return;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
}

/* Tells the master how it went: 0, or what it told. */
static int open_door(int channel, int traps, int error)
{
    int listener = -1;
    if (!error && traps >= 0) {
        listener = rc_notify_install((unsigned)traps);
        if (listener < 0)
            error = listener;
    }
    int said = rc_channel_greet(channel, listener, -error);
    rc_close(&listener);
    return error ? error : said;
}

/* The second line, for a guard that is stopped: leaders at least end with the process. In
 * a host with threads it would be the end of the one that forked. */
static void die_with_master(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

unsigned rc_spawn_traps(const struct rc_engine *engine, struct rc_worker *worker)
{
    worker->unlinks_seen = engine->expects_paths || engine->unixes;
    return worker->unlinks_seen ? RC_TRAP_UNLINKS : RC_TRAP_BINDS;
}

static int child_setup(struct rc_engine *engine, struct rc_worker *worker, enum rc_door_kind door)
{
    pid_t self = getpid();

    rc_slice_child(engine);
    if (!engine->foreground && setpgid(0, 0) < 0 && errno != EPERM)
        return -errno;
    /* From the child itself, before anything else: should the master die now,
     * the guard already knows. */
    int error = rc_guard_add(&engine->guard, self);
    if (engine->flags & RC_SUBREAPER)
        die_with_master();
    if (!engine->foreground)
        child_stdin();
    if (!error)
        error = rc_output_child(worker->output);
    int traps = door == RC_DOOR_NOTIFY ? (int)rc_spawn_traps(engine, worker) : -1;
    return open_door(worker->child_channel, traps, error);
}

/* With every signal blocked still. A handler of the master's would take, in the child, what
 * is meant for the program: before an exec all are reset, else those that the master says
 * (a forked interpreter keeps its own). What Python ignores would stay ignored across exec,
 * and a program that does not hear of its children's ends cannot wait for them. */
static void child_default_signals(const struct rc_engine *engine, bool execs)
{
    for (int number = 1; number < NSIG; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) < 0)
            continue;
        bool ignored = now.sa_handler == SIG_IGN, handled = !ignored && now.sa_handler != SIG_DFL;
        if (ignored ? number == SIGCHLD || (execs && (number == SIGPIPE || number == SIGXFSZ))
                    : handled && (execs || sigismember(&engine->handled, number) == 1))
            signal(number, SIG_DFL);
    }
}

#ifdef __GLIBC__ /* strerror may translate, and for that take locks */
#define describe_error strerrordesc_np
#else
#define describe_error strerror
#endif

static _Noreturn void child_die(const char *what, const char *path, int error)
{
    /* No stdio: locks may be held. */
    const char *parts[] = {"recluster: cannot ",  what, " ", path, ": ",
                           describe_error(error), "\n"};
    char line[512];
    size_t length = 0;
    for (size_t at = 0; at < sizeof parts / sizeof parts[0]; at++)
        for (const char *c = parts[at] ? parts[at] : "?"; *c && length < sizeof line; c++)
            line[length++] = *c;
    (void)!write(STDERR_FILENO, line, length);
    _exit(error == ENOENT ? 127 : 126);
}

/* In a worker that a mold has forked (mold.c) and the master adopted: the guard knows it, and
 * its signals are those of an interpreter that has just begun. */
void rc_child_begin(int channel, int traps, bool ours)
{
    if (ours)
        die_with_master();
    int error = open_door(channel, traps, 0);
    if (error)
        child_die("open the door of", "a worker", -error);
}

/* ---- fork ----------------------------------------------------------------------- */

/* 0 in the child, which still has every signal blocked; the pid in the master. */
static pid_t fork_worker(struct rc_engine *engine, struct rc_worker *worker, const sigset_t *before)
{
    (void)rc_spawn_traps(engine, worker);
    pid_t pid = fork();
    if (pid <= 0)
        return pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, before, NULL);
    if (!engine->foreground)
        (void)setpgid(pid, pid); /* both sides: whoever comes first */
    /* Not reaped by anybody but us, so the number is still the child's. */
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int error = pidfd < 0 ? -errno
                          : rc_source_add(engine->epoll, &worker->process, RC_SOURCE_PROCESS, pidfd,
                                          EPOLLIN);
    if (error) {
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ; /* killed and ours: this returns at once */
        (void)rc_guard_remove(&engine->guard, pid);
        rc_close(&pidfd);
        return error;
    }
    worker->pid = pid;
    worker->channel.held = false;
    rc_close(&worker->child_channel);
    rc_output_close(worker);
    return pid;
}

/* Forks the worker with that id: its pid, 0 in the child with every signal still
 * blocked, or -errno with the worker forgotten. */
static pid_t fork_by_id(struct rc_engine *engine, uint32_t id, struct rc_worker **out)
{
    struct rc_worker *worker = rc_find(engine, id);
    sigset_t all, before;
    if (!worker)
        return -ESRCH;
    pid_t pid = rc_guard_ready(engine);
    if (!pid) {
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        pid = fork_worker(engine, worker, &before);
        if (pid < 0)
            pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (pid < 0)
        worker_free(engine, worker);
    *out = worker;
    return pid;
}

/* Last: up to here the child may need numbers above the program's limit. Nothing is blocked
 * in a worker, whatever was in us: what blocks the stop signal cannot be stopped. */
static void child_restore(const struct rc_engine *engine, bool execs)
{
    sigset_t none;
    sigemptyset(&none);
    rc_descriptors_restore(engine);
    child_default_signals(engine, execs);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

pid_t rc_worker_fork(rc_engine *engine, uint32_t id, enum rc_door_kind door)
{
    struct rc_worker *worker;
    pid_t pid = fork_by_id(engine, id, &worker);
    if (pid == 0) {
        int error = child_setup(engine, worker, door);
        if (error)
            child_die("open the door of", "a worker", -error);
        error = rc_become(engine);
        if (error)
            child_die("become the user of", "a worker", -error);
        worker->child_channel = -1;                 /* the program's now */
        worker->output[0] = worker->output[1] = -1; /* closed (output.c) */
        child_restore(engine, false);
    }
    return pid;
}

pid_t rc_worker_exec(rc_engine *engine, uint32_t id, enum rc_door_kind door,
                     const struct rc_program *program)
{
    struct rc_worker *worker;
    pid_t pid = fork_by_id(engine, id, &worker);
    if (pid == 0) {
        int error = child_setup(engine, worker, door);
        if (error)
            child_die("open the door of", program->path, -error);
        error = rc_become(engine);
        if (error)
            child_die("become the user of", program->path, -error);
        if (program->cwd && chdir(program->cwd) < 0)
            child_die("change to", program->cwd, errno);
        (void)fcntl(worker->child_channel, F_SETFD, 0);
        child_restore(engine, true);
        execve(program->path, program->argv, program->envp);
        child_die("run", program->path, errno);
    }
    return pid;
}

/* ---- messages --------------------------------------------------------- */

int rc_worker_send(rc_engine *engine, uint32_t id, const char *line, size_t length)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->channel_source.fd < 0)
        return -EPIPE;
    int state = rc_channel_send(&worker->channel, worker->channel_source.fd, line, length);
    if (state < 0)
        return state;
    return rc_source_arm(engine->epoll, &worker->channel_source,
                         state ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

int rc_worker_release(rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker)
        return -ESRCH;
    if (!worker->dead && worker->pid > 0)
        return -EBUSY;
    int error = rc_lanes_drop(engine, worker);
    if (!error)
        worker_free(engine, worker);
    return error;
}

/* ---- death -------------------------------------------------------------------------- */

/* What the leader leaves of its group. Where the leader is reaped already, its number may be
 * another's, unless members of the group keep it: then nobody has it. */
static void kill_group(const struct rc_worker *worker, bool reaped)
{
    if (!reaped || (kill(worker->pid, 0) < 0 && errno == ESRCH))
        (void)kill(-worker->pid, SIGKILL);
}

/* The pidfd is readable: the leader is a zombie. Or it was reaped: the program that embeds
 * us ignores SIGCHLD, or waits for any child. Then nobody can say how it ended. */
void rc_worker_exited(struct rc_engine *engine, struct rc_worker *worker)
{
    siginfo_t info = {0};
    int found =
        waitid((idtype_t)P_PIDFD, (id_t)worker->process.fd, &info, WEXITED | WNOHANG | WNOWAIT);
    bool reaped = found < 0 && errno == ECHILD;
    if (!reaped && (found < 0 || info.si_pid == 0))
        return;
    worker->status = reaped                       ? rc_mold_status(engine, worker)
                     : info.si_code == CLD_EXITED ? info.si_status
                                                  : -info.si_status;
    rc_strays_note(engine, worker);
    kill_group(worker, reaped);
    (void)rc_guard_remove(&engine->guard, worker->pid);
    rc_counts_end(worker);
    (void)waitid((idtype_t)P_PIDFD, (id_t)worker->process.fd, &info, WEXITED | WNOHANG);
    rc_procfiles_end(worker);
    /* A pidfd stays readable for ever after. */
    rc_source_shut(engine->epoll, &worker->process);
    worker->dead = worker->leaving = true;
    worker->pendings = 0;
    rc_unix_exited(engine, worker);
    engine->orphans = true;
    rc_rings_of(engine, worker);
    rc_lanes_resteer(engine);
    rc_handover_ended(engine, worker);
    rc_dispatch_worker_ended(engine, worker);
}

/* Nothing polls its lanes any more. Without a seccomp door there is no telling,
 * so there the leader's end counts. */
void rc_worker_departed(struct rc_engine *engine, struct rc_worker *worker)
{
    rc_source_shut(engine->epoll, &worker->door);
    if (worker->dead && !worker->leaving && !worker->gone) {
        worker->gone = true;
        rc_emit(engine, RC_EVENT_GONE, worker->id, 0, NULL, 0);
    }
}

/* As PID 1 or subreaper: children we did not start. A worker's zombie is left
 * to its pidfd; while one is in front, we look again after it was reaped. */
void rc_reap(rc_engine *engine)
{
    engine->orphans = false;
    if (!(engine->flags & RC_SUBREAPER) || rc_birth_under_way(engine))
        return; /* one of them may be a worker that has not been adopted yet */
    for (int rounds = 0; rounds < 1024; rounds++) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
            if (worker->pid == info.si_pid && worker->process.fd >= 0)
                return;
        if (info.si_pid == engine->guard.pid)
            return;
        (void)waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
    }
}
