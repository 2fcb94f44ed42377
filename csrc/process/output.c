/* output.c - a worker's standard output and error, read by the master.
 *
 * Owns two pipes for each worker whose output is asked for: the ends that are read are the
 * caller's at once, those that are written to are the child's, and kept here until it is born.
 * Invariant: a pipe ends for its reader when the worker and all that it has started have closed
 * it; neither the master nor another worker keeps an end that can be written to.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int rc_worker_output(rc_engine *engine, uint32_t id, int *out, int *err)
{
    struct rc_worker *worker = rc_find(engine, id);
    int first[2], second[2];
    if (!worker || worker->child_channel < 0 || worker->output[0] >= 0)
        return -ESRCH;
    if (pipe2(first, O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(second, O_CLOEXEC) < 0) {
        int error = -errno;
        close(first[0]);
        close(first[1]);
        return error;
    }
    /* The open file of an end that is read is nobody else's. */
    (void)fcntl(first[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(second[0], F_SETFL, O_NONBLOCK);
    worker->output[0] = first[1];
    worker->output[1] = second[1];
    *out = first[0];
    *err = second[0];
    return 0;
}

void rc_output_close(struct rc_worker *worker)
{
    rc_close(&worker->output[0]);
    rc_close(&worker->output[1]);
}

/* In the child. A closed stream is opened by this, as a terminal would be. */
int rc_output_child(const int *output)
{
    for (int at = 0; at < 2; at++)
        if (output[at] >= 0 && dup2(output[at], STDOUT_FILENO + at) < 0)
            return -errno;
    for (int at = 0; at < 2; at++)
        if (output[at] > STDERR_FILENO)
            close(output[at]);
    return 0;
}
