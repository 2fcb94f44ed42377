/* processes.h - what is read of another process: what /proc says (proc.c), its descriptors
 * (descriptor.c), its memory (reader.c), what its threads are in (threads.c), for what they wait
 * (waiters.c), and whose it is (descent.c).
 */
#ifndef RECLUSTER_PROCESSES_H
#define RECLUSTER_PROCESSES_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rc_engine;
struct rc_reader;
struct rc_worker;

struct rc_wanted {
    pid_t process;
    uint64_t from;
    size_t length; /* PATH_MAX at most */
    bool text;     /* to its end, which may be the last byte that is there */
};

enum rc_descent { RC_DESCENT_STRANGE, RC_DESCENT_UNKNOWN, RC_DESCENT_OURS };

/* waiters.c: what a worker does at a socket; the last is what may be told first */
enum rc_waiting { RC_WAITS_IDLE, RC_WAITS_BUSY, RC_WAITS_THERE };
int rc_waiters_look(struct rc_engine *engine, const struct rc_worker *worker, uint64_t inode);

/* threads.c: what a thread is in */
enum { RC_THREAD_ARGUMENTS = 6 };
struct rc_thread_call {
    long number; /* -1: in none, or it runs */
    unsigned long long argument[RC_THREAD_ARGUMENTS];
};
/* By what it waits for descriptors. */
enum rc_wait_kind { RC_WAIT_NONE, RC_WAIT_ACCEPT, RC_WAIT_EPOLL, RC_WAIT_POLL, RC_WAIT_SELECT };
void rc_thread_parse(const char *text, struct rc_thread_call *call);
enum rc_wait_kind rc_thread_waits(const struct rc_thread_call *call);
int rc_threads_visit(pid_t pid, int (*visit)(const struct rc_thread_call *call, void *given),
                     void *given);
bool rc_thread_reads(const struct rc_thread_call *call, int number);
bool rc_is_stopped(pid_t pid);

/* proc.c */
ssize_t rc_proc_read(pid_t pid, const char *name, char *text, size_t room);
DIR *rc_proc_open(pid_t pid, const char *name);
long rc_proc_next(DIR *folder);

/* descent.c */
enum rc_descent rc_descent(const struct rc_engine *engine, pid_t pid, struct rc_worker **worker);
const char *rc_stat_of(pid_t pid, char *line, size_t room);
pid_t rc_parent_of(pid_t pid);

/* descriptor.c */
pid_t rc_process_of(pid_t thread);
int rc_take_descriptor(struct rc_worker *worker, pid_t process, int number);
uint64_t rc_socket_at(pid_t process, int number);

/* reader.c */
int rc_reader_read(struct rc_engine *engine, const struct rc_wanted *wanted,
                   struct rc_reader **out);
int rc_reader_event(const struct rc_reader *reader);
ssize_t rc_reader_result(const struct rc_reader *reader, const char **bytes);
void rc_reader_put(struct rc_engine *engine, struct rc_reader *reader);
void rc_reader_close(const struct rc_reader *reader);
void rc_reader_discard(int fd);

#endif
