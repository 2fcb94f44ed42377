/* channel.c - newline-delimited JSON over one end of a stream socketpair.
 *
 * Owns: the bytes on their way in and out. Does not own the socket or the
 * meaning of a line. Invariant: whatever a worker sends or does not read costs
 * at most RC_LINE_MAX + RC_SEND_MAX bytes here and never blocks the master.
 *
 * The format is Node's own IPC (NODE_CHANNEL_SERIALIZATION_MODE=json), so
 * process.send() and process.on('message') need no library.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_STEP = 16 * 1024 };

/* Room for `more` bytes behind end, by moving what is unread to the front. */
static int buffer_make_room(struct rc_buffer *buffer, size_t more)
{
    if (buffer->start > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->end + more <= buffer->room)
        return 0;
    size_t room = buffer->room ? buffer->room : 1024;
    while (room < buffer->end + more)
        room *= 2;
    char *bytes = realloc(buffer->bytes, room);
    if (!bytes)
        return -ENOMEM;
    buffer->bytes = bytes;
    buffer->room = room;
    return 0;
}

int rc_channel_greet(int fd, int door, int error)
{
    struct rc_hello hello = {.magic = RC_HELLO_MAGIC, .error = error};
    return rc_send_descriptor(fd, &hello, sizeof hello, door);
}

/* The hello is one small write at the head of an empty stream socket, so it is
 * there whole or not at all. */
int rc_channel_hello(int fd, struct rc_hello *hello, int *door)
{
    int received = -1;
    ssize_t got = rc_receive_descriptor(fd, hello, sizeof *hello, &received);
    if (got < 0)
        return (int)got;
    if (got != sizeof *hello || hello->magic != RC_HELLO_MAGIC) {
        rc_close(&received);
        return -EPROTO;
    }
    *door = received;
    return 0;
}

/* One read. Returns the bytes read, 0 when nothing is there now or ever
 * (channel->finished tells which), or -ENOMEM. */
int rc_channel_read(struct rc_channel *channel, int fd)
{
    int error = buffer_make_room(&channel->in, READ_STEP);
    if (error)
        return error;
    ssize_t got;
    do
        got = recv(fd, channel->in.bytes + channel->in.end, READ_STEP, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0 && errno != ECONNRESET) /* no memory: what was sent is still there */
        return -errno;
    if (got <= 0) {
        channel->finished = true;
        return 0;
    }
    channel->in.end += (size_t)got;
    return (int)got;
}

bool rc_channel_has_line(const struct rc_channel *channel)
{
    const struct rc_buffer *in = &channel->in;
    return in->end > in->start && memchr(in->bytes + in->start, '\n', in->end - in->start);
}

/* 1: a line. 0: none complete. -EMSGSIZE, once per line: it passes RC_LINE_MAX
 * and is being thrown away. Empty lines are skipped. */
int rc_channel_line(struct rc_channel *channel, const char **line, size_t *length)
{
    struct rc_buffer *in = &channel->in;
    while (in->end > in->start) {
        char *begin = in->bytes + in->start;
        char *newline = memchr(begin, '\n', in->end - in->start);
        if (!newline) {
            size_t partial = in->end - in->start;
            if (channel->discarding) {
                in->start = in->end;
                return 0;
            }
            if (partial <= RC_LINE_MAX)
                return 0;
            channel->discarding = true;
            in->start = in->end;
            return -EMSGSIZE;
        }
        size_t size = (size_t)(newline - begin);
        in->start += size + 1;
        if (channel->discarding) {
            channel->discarding = false;
            continue;
        }
        if (size > RC_LINE_MAX)
            return -EMSGSIZE;
        if (size == 0)
            continue;
        *line = begin;
        *length = size;
        return 1;
    }
    return 0;
}

/* 0: everything is out, or held; 1: the socket is full, ask again when writable. */
int rc_channel_flush(struct rc_channel *channel, int fd)
{
    struct rc_buffer *out = &channel->out;
    while (out->end > out->start && !channel->held) {
        ssize_t sent =
            send(fd, out->bytes + out->start, out->end - out->start, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            out->start += (size_t)sent;
        } else if (errno == EAGAIN) {
            return 1;
        } else if (errno != EINTR) {
            out->start = out->end;
            return -errno;
        }
    }
    if (!channel->held)
        out->start = out->end = 0;
    return 0;
}

/* Queues `line` and its newline whole or, with -ENOBUFS, not at all: half a
 * line would swallow the next one. */
int rc_channel_send(struct rc_channel *channel, int fd, const char *line, size_t length)
{
    struct rc_buffer *out = &channel->out;
    if (memchr(line, '\n', length))
        return -EINVAL;
    if (out->end - out->start + length + 1 > RC_SEND_MAX)
        return -ENOBUFS;
    int error = buffer_make_room(out, length + 1);
    if (error)
        return error;
    memcpy(out->bytes + out->end, line, length);
    out->bytes[out->end + length] = '\n';
    out->end += length + 1;
    return rc_channel_flush(channel, fd);
}

void rc_channel_free(struct rc_channel *channel)
{
    free(channel->in.bytes);
    free(channel->out.bytes);
    memset(channel, 0, sizeof *channel);
}
