/* filepages.c - what a mold has read of its libraries, and its workers will not, is let go.
 *
 * To load a library goes through it: relocations, constructors, tables. The pages are the
 * kernel's cache of the file, and no child gets them by fork; but the mold is charged with
 * them while it lives.
 *
 * Invariant: only of mappings in which nothing is the process's own. What has no page that was
 * written (Anonymous: 0), and cannot be written, is what the file says, now and when it is read
 * again. A library's relocated tables are read-only too, and not what its file says.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct mapping {
    uintptr_t from, to;
    unsigned long inode;
    char rights[5];
};

static bool begins(const char *line, struct mapping *mapping)
{
    struct mapping found;
    bool is = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %lu", &found.from, &found.to,
                     found.rights, &found.inode) == 4;
    if (is)
        *mapping = found;
    return is;
}

/* Of this process. What is locked, or a device's, the kernel refuses. */
void rc_file_pages_forget(void)
{
    struct mapping mapping = {0};
    unsigned long own;
    size_t room = 0;
    char *line = NULL;
    FILE *all = fopen("/proc/self/smaps", "re");
    while (all && getline(&line, &room, all) > 0)
        if (!begins(line, &mapping) && sscanf(line, "Anonymous: %lu", &own) == 1 && own == 0 &&
            mapping.inode && !strchr(mapping.rights, 'w'))
            (void)madvise((void *)mapping.from, mapping.to - mapping.from, MADV_DONTNEED);
    free(line);
    if (all)
        fclose(all);
}
