/* bare_fork.c - the least a new process can cost: bare_fork COUNT [KIB]
 *
 * Forks COUNT children one after the other; each writes when it came to be, and
 * waits. KIB of written memory, which each fork has to map anew, make the
 * process as large as another is. stdout: "START END" per child, CLOCK_MONOTONIC in nanoseconds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct stamp {
    int64_t began, ended;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void child(struct stamp stamp, const int said[2], const int hold[2])
{
    char byte;
    stamp.ended = now_ns();
    close(hold[1]);
    if (write(said[1], &stamp, sizeof stamp) != sizeof stamp)
        _exit(1);
    _exit(read(hold[0], &byte, 1) != 0); /* until the parent goes */
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, said[2], hold[2];
    size_t size = argc > 2 ? (size_t)atoi(argv[2]) << 10 : 0;
    volatile char *memory = size ? aligned_alloc(4096, size) : NULL;
    if (count < 1 || pipe(said) < 0 || pipe(hold) < 0 || (size && !memory))
        return 2;
    for (size_t at = 0; at < size; at += 4096)
        memory[at] = 1;
    for (int at = 0; at < count; at++) {
        struct stamp stamp = {now_ns(), 0};
        pid_t pid = fork();
        if (pid == 0)
            child(stamp, said, hold);
        if (pid < 0)
            return 1;
    }
    for (int at = 0; at < count; at++) {
        struct stamp stamp;
        if (read(said[0], &stamp, sizeof stamp) != sizeof stamp)
            return 1;
        printf("%lld %lld\n", (long long)stamp.began, (long long)stamp.ended);
    }
    return 0;
}
