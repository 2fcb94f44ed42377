/* Listens where no door sees it: listens_unseen KIND PORT [SEEN].
 *
 * KIND uring (io_uring's own bind and listen), i386 (int 0x80), x32, plain (for a static
 * build behind the preload door). Then, with SEEN, on that port as any server. Closes
 * what it accepts; exits with 77 where the kernel does not have it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OP_BIND = 56, OP_LISTEN = 57, NOT_HERE = 77, BACKLOG = 16 }; /* Linux 6.11 */

static struct io_uring_params ring;
static char *rings, *entries;
static int ring_fd = -1;

static long uring(int operation, int fd, const void *address, uint64_t length, uint32_t backlog)
{
    struct io_uring_sqe entry = {.opcode = (uint8_t)operation, .fd = fd};
    if (ring_fd < 0) {
        ring_fd = (int)syscall(SYS_io_uring_setup, 4, &ring);
        if (ring_fd < 0)
            exit(NOT_HERE);
        rings = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQ_RING);
        entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQES);
    }
    entry.addr = (uint64_t)(uintptr_t)address;
    entry.off = length;
    entry.len = backlog;
    uint32_t *tail = (uint32_t *)(void *)(rings + ring.sq_off.tail);
    uint32_t mask = *(uint32_t *)(void *)(rings + ring.sq_off.ring_mask), at = *tail & mask;
    memcpy(entries + at * sizeof entry, &entry, sizeof entry);
    ((uint32_t *)(void *)(rings + ring.sq_off.array))[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring_fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        exit(NOT_HERE);
    uint32_t *head = (uint32_t *)(void *)(rings + ring.cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(void *)(rings + ring.cq_off.cqes) +
                                (*head & *(uint32_t *)(void *)(rings + ring.cq_off.ring_mask));
    long result = done->res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static long i386(long number, long a, long b, long c)
{
    long result = -ENOSYS;
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory",
                     "r8", "r9", "r10", "r11");
#endif
    return (int)result;
}

static long listen_by(const char *kind, int fd, const struct sockaddr_in *address)
{
    socklen_t length = sizeof *address;
    long error;
    if (!strcmp(kind, "uring")) {
        error = uring(OP_BIND, fd, address, length, 0);
        return error < 0 ? error : uring(OP_LISTEN, fd, NULL, 0, BACKLOG);
    }
    if (!strcmp(kind, "i386")) { /* pointers of 32 bits */
        void *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        memcpy(low, address, length);
        error = i386(361, fd, (long)(uintptr_t)low, length);
        return error < 0 ? error : i386(363, fd, BACKLOG, 0);
    }
    if (!strcmp(kind, "x32")) {
        error = syscall(0x40000000 | SYS_bind, fd, address, length);
        error = error < 0 ? -1 : syscall(0x40000000 | SYS_listen, fd, BACKLOG);
        return error < 0 ? -errno : 0;
    }
    error = bind(fd, (const struct sockaddr *)address, length);
    return error < 0 || listen(fd, BACKLOG) < 0 ? -errno : 0;
}

static int open_at(const char *kind, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    long error = listen_by(kind, fd, &address);
    if (error == -ENOSYS || error == -EINVAL || error == -EPERM)
        exit(NOT_HERE);
    if (error) {
        fprintf(stderr, "listen by %s: %s\n", kind, strerror((int)-error));
        exit(1);
    }
    return fd;
}

int main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    int fd = open_at(arguments[1], arguments[2]);
    if (count > 3 && !strcmp(arguments[3], "probe"))
        return 0;
    if (count > 3)
        fd = open_at("plain", arguments[3]);
    for (;;)
        close(accept(fd, NULL, NULL));
}
