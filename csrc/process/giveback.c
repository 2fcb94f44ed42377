/* giveback.c - a child that needs only us and the C library gives all other memory back.
 *
 * A fork keeps whatever its parent had: of each page that the parent writes to afterwards there
 * are two. What is given back (MADV_DONTNEED) reads as zeroes, or as its file: it stays mapped.
 *
 * Invariant: whoever called this, and what it calls from now on, finds its memory. These stay:
 *  - files with code that is called: we and the C library; with them what follows such a file
 *    in memory, for that is where its variables are that begin as zero (.bss);
 *  - the dynamic linker: the C library looks into it;
 *  - the stack, which may be a thread's, and the first one: /proc/PID/cmdline is there;
 *  - what has errno: with it this thread's block, where the kernel writes too (rseq, tid);
 *  - the shadow stack (VmFlags: ss), without which no function returns;
 *  - code that is no file's: whoever rewrites system calls (a tracer) keeps it there;
 *  - what is shared: nothing in it is a copy.
 * From now on nothing may be called that is not on the caller's list: no malloc, stdio, fork (its
 * handlers are anybody's), no way out but _exit.
 *
 * Nothing is given back where that cannot be: a library that was loaded before the C library (a
 * tracer, a sanitizer; our own shim answers none of them) answers one of the calls, and what it
 * needs we do not know; or calls are bound when they are first made, and the linker reads its
 * heap for that.
 */
#include "internal.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KEEPS_ALL true
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEPS_ALL true /* each access looks into a shadow of its own */
#endif
#ifndef KEEPS_ALL
#define KEEPS_ALL false
#endif

/* The linker's, of whoever refers to them: ours. */
extern ElfW(Dyn) _DYNAMIC[];
extern char _end[] __attribute__((visibility("hidden")));

enum { FILES_MOST = 8, PAGE_MOST = 1 << 16 };

struct mapping {
    uintptr_t from, to, device, inode;
    bool shared, runs;
    const char *name; /* its last part; of the line */
};

/* By hand: sscanf looks into a locale, which may be on the heap. */
struct lines {
    int fd;
    size_t at, end;
    char room[4096], line[4352];
};

static bool next_line(struct lines *lines)
{
    for (size_t length = 0;;) {
        if (lines->at == lines->end) {
            ssize_t got = read(lines->fd, lines->room, sizeof lines->room);
            if (got <= 0)
                return false;
            lines->at = 0;
            lines->end = (size_t)got;
        }
        char c = lines->room[lines->at++];
        if (c == '\n') {
            lines->line[length] = 0;
            return true;
        }
        if (length < sizeof lines->line - 1)
            lines->line[length++] = c;
    }
}

/* And what ends it. */
static uintptr_t number(const char **at, unsigned base)
{
    uintptr_t value = 0;
    for (;; ++*at) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value * base + (uintptr_t)(c - '0');
        else if (base == 16 && c >= 'a' && c <= 'f')
            value = value * base + (uintptr_t)(c - 'a' + 10);
        else
            break;
    }
    if (**at)
        ++*at;
    return value;
}

/* `from-to rwxp offset device:device inode name`. */
static bool begins(const char *line, struct mapping *mapping)
{
    if (!((*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f')))
        return false;
    mapping->from = number(&line, 16);
    mapping->to = number(&line, 16);
    if (strlen(line) < 5)
        return false;
    mapping->runs = line[2] == 'x';
    mapping->shared = line[3] != 'p';
    line += 5;
    (void)number(&line, 16);
    mapping->device = number(&line, 16) << 20;
    mapping->device |= number(&line, 16);
    mapping->inode = number(&line, 10);
    while (*line == ' ')
        line++;
    mapping->name = line;
    for (; *line; line++)
        if (*line == '/')
            mapping->name = line + 1;
    return true;
}

static bool begins_with(const struct mapping *mapping, const char *beginning)
{
    return strncmp(mapping->name, beginning, strlen(beginning)) == 0;
}

static bool has(const struct mapping *mapping, uintptr_t address)
{
    return address >= mapping->from && address < mapping->to;
}

/* ---- whose code is called -------------------------------------------------------------- */

struct file {
    uintptr_t device, inode;
};

struct needed {
    struct file file[FILES_MOST];
    size_t files;
};

static bool is_of(const struct needed *needed, const struct mapping *mapping)
{
    for (size_t at = 0; at < needed->files; at++)
        if (mapping->inode == needed->file[at].inode && mapping->device == needed->file[at].device)
            return true;
    return false;
}

/* The C library by its names: glibc's, as two files before 2.34, and musl's. */
static bool is_known(const struct mapping *mapping)
{
    return has(mapping, (uintptr_t)begins_with) || begins_with(mapping, "libc.") ||
           begins_with(mapping, "libc-") || begins_with(mapping, "libpthread") ||
           begins_with(mapping, "ld-musl");
}

static bool find_files(const uintptr_t *called, size_t count, struct needed *needed)
{
    struct lines lines = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    struct mapping mapping;
    size_t found = 0;
    while (lines.fd >= 0 && next_line(&lines)) {
        size_t before = found;
        if (!begins(lines.line, &mapping))
            continue;
        for (size_t at = 0; at < count; at++)
            found += has(&mapping, called[at]);
        found += has(&mapping, (uintptr_t)begins_with);
        if (found == before || is_of(needed, &mapping))
            continue;
        if (!mapping.inode || needed->files == FILES_MOST || !is_known(&mapping)) {
            found = 0;
            break;
        }
        needed->file[needed->files++] = (struct file){mapping.device, mapping.inode};
    }
    rc_close(&lines.fd);
    return found == count + 1;
}

/* ---- what goes ------------------------------------------------------------------------- */

static bool stays(const struct mapping *mapping, const struct needed *needed)
{
    if (mapping->shared || has(mapping, (uintptr_t)needed) || has(mapping, (uintptr_t)&errno))
        return true;
    if (mapping->inode)
        return is_of(needed, mapping) || begins_with(mapping, "ld");
    return mapping->runs || (*mapping->name == '[' && !begins_with(mapping, "[heap]") &&
                             !begins_with(mapping, "[anon"));
}

/* A library's .bss follows its file, and the kernel may have joined to that what was mapped
 * later. Where ours ends we know: beyond it nothing is anybody's that is called. */
static bool beyond_ours(struct mapping *mapping, uintptr_t library)
{
    uintptr_t end = ((uintptr_t)_end + PAGE_MOST - 1) & ~(uintptr_t)(PAGE_MOST - 1);
    if ((uintptr_t)_end <= library || (uintptr_t)_end > mapping->to || end >= mapping->to)
        return false;
    if (end > mapping->from)
        mapping->from = end;
    return true;
}

static void give(const struct needed *needed)
{
    struct lines lines = {.fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC)};
    struct mapping mapping = {0};
    uintptr_t library = 0, end = 0; /* the last mapping of one that stays, and what follows it */
    bool goes = false;
    while (lines.fd >= 0 && next_line(&lines)) {
        if (begins(lines.line, &mapping)) {
            bool kept = stays(&mapping, needed), follows = mapping.from == end;
            bool is_file = mapping.inode && kept && !mapping.shared;
            if (is_file)
                library = mapping.from;
            if (is_file || (!mapping.inode && follows))
                end = mapping.to;
            goes = !kept && (mapping.inode || !follows || beyond_ours(&mapping, library));
        } else if (goes && strncmp(lines.line, "VmFlags:", 8) == 0) {
            if (!strstr(lines.line, " ss"))
                (void)madvise((void *)mapping.from, mapping.to - mapping.from, MADV_DONTNEED);
            goes = false;
        }
    }
    rc_close(&lines.fd);
}

static bool is_bound(void)
{
    for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_BIND_NOW ||
            (entry->d_tag == DT_FLAGS && entry->d_un.d_val & DF_BIND_NOW) ||
            (entry->d_tag == DT_FLAGS_1 && entry->d_un.d_val & DF_1_NOW))
            return true;
    return false;
}

void rc_memory_give_back(const uintptr_t *called, size_t count)
{
    struct needed needed = {.files = 0};
    if (!KEEPS_ALL && is_bound() && find_files(called, count, &needed))
        give(&needed);
}
