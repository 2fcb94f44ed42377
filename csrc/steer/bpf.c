/* bpf.c - the bpf system call: maps, programs, and attaching to a cgroup.
 *
 * Owns: what libbpf would do for us, which is little: the programs were compiled
 * beforehand (bpf/balance.h), and the descriptors of their maps are put in here.
 * Every function returns a descriptor (close-on-exec, as the kernel makes them)
 * or -errno. Nothing is pinned: what was made goes with its last descriptor.
 *
 * The verifier's log goes nowhere unless the caller gives it room: where the
 * programs are refused the reason is the privilege, and errno says that.
 */
#include "steer/kernel.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct rc_bpf_mark {
    unsigned at; /* this instruction and the next take the address of a map */
    enum rc_bpf_map map;
};
#include "bpf/balance.h"

#define PROGRAM_MAX 1024
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define TEXT(name)                                                                                 \
    rc_##name##_text, COUNT(rc_##name##_text), rc_##name##_marks, COUNT(rc_##name##_marks)

static const struct {
    const char *name;
    enum bpf_prog_type type;
    const struct bpf_insn *text;
    size_t length;
    const struct rc_bpf_mark *marks;
    size_t count;
} PROGRAMS[] = {
    [RC_BPF_ROUND_ROBIN] = {"rc_round_robin", BPF_PROG_TYPE_SK_REUSEPORT, TEXT(round_robin)},
    [RC_BPF_LEAST_CONNECTIONS] = {"rc_least_conn", BPF_PROG_TYPE_SK_REUSEPORT,
                                  TEXT(least_connections)},
    [RC_BPF_COUNT] = {"rc_count", BPF_PROG_TYPE_SOCK_OPS, TEXT(count)},
    [RC_BPF_FLOWS] = {"rc_flows", BPF_PROG_TYPE_SK_REUSEPORT, TEXT(flows)},
};
_Static_assert(COUNT(rc_flows_text) <= PROGRAM_MAX, "longer than the room for it");
_Static_assert(COUNT(rc_round_robin_text) <= PROGRAM_MAX, "longer than the room for it");
_Static_assert(COUNT(rc_least_connections_text) <= PROGRAM_MAX, "longer than the room for it");
_Static_assert(COUNT(rc_count_text) <= PROGRAM_MAX, "longer than the room for it");

static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
    long result;
    int tries = 5;
    do /* EAGAIN: a signal came while the verifier was at work */
        result = syscall(SYS_bpf, command, attributes, sizeof *attributes);
    while (result < 0 && errno == EAGAIN && --tries > 0);
    return result < 0 ? -errno : (int)result;
}

static uint64_t address_of(const void *memory)
{
    return (uint64_t)(uintptr_t)memory;
}

/* ---- maps --------------------------------------------------------------------- */

/* Lanes by number. The kernel takes one out when it leaves its group. */
int rc_bpf_sockarray(unsigned entries)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_type = BPF_MAP_TYPE_REUSEPORT_SOCKARRAY;
    attributes.key_size = sizeof(uint32_t);
    attributes.value_size = sizeof(uint64_t);
    attributes.max_entries = entries;
    memcpy(attributes.map_name, "rc_lanes", sizeof "rc_lanes");
    return bpf(BPF_MAP_CREATE, &attributes);
}

static size_t whole_pages(size_t length)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (length + page - 1) / page * page;
}

/* Memory that we and the programs see: an array. The size of a value is a multiple
 * of 8, so that they lie without gaps. */
int rc_bpf_shared(unsigned entries, size_t each, void **memory)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = sizeof(uint32_t);
    attributes.value_size = (uint32_t)each;
    attributes.max_entries = entries;
    attributes.map_flags = BPF_F_MMAPABLE;
    memcpy(attributes.map_name, "rc_shared", sizeof "rc_shared");
    int map = bpf(BPF_MAP_CREATE, &attributes);
    if (map < 0)
        return map;
    int error = rc_bpf_see(map, entries, each, memory);
    if (error) {
        rc_close(&map);
        return error;
    }
    return map;
}

/* The same memory once more, of a map that is there already. */
int rc_bpf_see(int map, unsigned entries, size_t each, void **memory)
{
    void *seen =
        mmap(NULL, whole_pages(entries * each), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
    if (seen == MAP_FAILED)
        return -errno;
    *memory = seen;
    return 0;
}

void rc_bpf_unshare(void *memory, size_t length)
{
    if (memory)
        (void)munmap(memory, whole_pages(length));
}

/* The types of a socket's storage must be told as BTF: an int for the key and,
 * for the value, any type of its size (bpf_local_storage_map_check_btf). */
static int storage_types(void)
{
    static const char names[] = "\0int\0mark";
    struct {
        struct btf_header header;
        struct {
            struct btf_type type;
            uint32_t encoding;
        } integers[2];
        char names[sizeof names];
    } types;
    memset(&types, 0, sizeof types);
    types.header.magic = BTF_MAGIC;
    types.header.version = BTF_VERSION;
    types.header.hdr_len = sizeof types.header;
    types.header.type_len = sizeof types.integers;
    types.header.str_off = sizeof types.integers;
    types.header.str_len = sizeof names;
    for (unsigned at = 0; at < 2; at++) {
        uint32_t size = at ? sizeof(struct rc_mark) : sizeof(int);
        types.integers[at].type.name_off = at ? 5 : 1;
        types.integers[at].type.info = (uint32_t)BTF_KIND_INT << 24;
        types.integers[at].type.size = size;
        types.integers[at].encoding = size * 8; /* BTF_INT_BITS */
    }
    memcpy(types.names, names, sizeof names);

    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.btf = address_of(&types);
    attributes.btf_size = offsetof(__typeof__(types), names) + sizeof names;
    return bpf(BPF_BTF_LOAD, &attributes);
}

/* What a lane has on its socket, its connections have too (BPF_F_CLONE). */
int rc_bpf_storage(void)
{
    int types = storage_types();
    if (types < 0)
        return types;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_type = BPF_MAP_TYPE_SK_STORAGE;
    attributes.key_size = sizeof(int);
    attributes.value_size = sizeof(struct rc_mark);
    attributes.map_flags = BPF_F_NO_PREALLOC | BPF_F_CLONE;
    attributes.btf_fd = (uint32_t)types;
    attributes.btf_key_type_id = 1;
    attributes.btf_value_type_id = 2;
    memcpy(attributes.map_name, "rc_marks", sizeof "rc_marks");
    int map = bpf(BPF_MAP_CREATE, &attributes);
    rc_close(&types);
    return map;
}

/* Which lane each UDP flow went to. */
int rc_bpf_flows(void)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_type = BPF_MAP_TYPE_LRU_HASH;
    attributes.key_size = sizeof(struct rc_flow_key);
    attributes.value_size = sizeof(uint32_t);
    attributes.max_entries = RC_FLOWS;
    memcpy(attributes.map_name, "rc_flows", sizeof "rc_flows");
    return bpf(BPF_MAP_CREATE, &attributes);
}

/* For storage the key is a descriptor, as for the sockarray the value is. */
int rc_bpf_update(int map, uint32_t key, const void *value)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_fd = (uint32_t)map;
    attributes.key = address_of(&key);
    attributes.value = address_of(value);
    attributes.flags = BPF_ANY;
    return bpf(BPF_MAP_UPDATE_ELEM, &attributes);
}

/* ---- programs ------------------------------------------------------------------- */

/* The verifier goes through a loop as often as it may run: 8 ms for all the lanes that a plan
 * has room for, 1 ms for 32. So its counter begins with as many as there are. */
static void limit(struct bpf_insn *text, size_t length, unsigned lanes)
{
    const uint8_t set = BPF_ALU64 | BPF_MOV | BPF_K;
    struct bpf_insn *counter = NULL;
    unsigned found = 0;
    for (size_t at = 0; at < length; at++)
        if (text[at].code == set && text[at].imm == RC_PLAN_LANES) {
            counter = &text[at];
            found++;
        }
    if (found == 1)
        counter->imm = (int)lanes;
}

/* `lanes`: how many of a plan it looks at; 0: it does not. */
int rc_bpf_load(enum rc_bpf_program which, const int maps[RC_MAPS], unsigned lanes, char *log,
                size_t room)
{
    struct bpf_insn text[PROGRAM_MAX];
    size_t length = PROGRAMS[which].length;
    memcpy(text, PROGRAMS[which].text, length * sizeof *text);
    if (lanes)
        limit(text, length, lanes);
    for (size_t at = 0; at < PROGRAMS[which].count; at++) {
        struct bpf_insn *load = &text[PROGRAMS[which].marks[at].at];
        enum rc_bpf_map map = PROGRAMS[which].marks[at].map;
        load->src_reg = map == RC_MAP_PLAN ? BPF_PSEUDO_MAP_VALUE : BPF_PSEUDO_MAP_FD;
        load->imm = maps[map];
    }
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = PROGRAMS[which].type;
    attributes.insns = address_of(text);
    attributes.insn_cnt = (uint32_t)length;
    attributes.license = address_of("MIT"); /* no helper that is used asks for the GPL */
    memcpy(attributes.prog_name, PROGRAMS[which].name, strlen(PROGRAMS[which].name));
    if (log) {
        attributes.log_buf = address_of(log);
        attributes.log_size = (uint32_t)room;
        attributes.log_level = 4; /* BPF_LOG_STATS; a refusal is always explained */
    }
    return bpf(BPF_PROG_LOAD, &attributes);
}

/* A link, unlike an attachment, goes with its descriptor: however the master
 * ends, nothing of it is left on the cgroup. */
int rc_bpf_link_cgroup(int program, int cgroup)
{
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.link_create.prog_fd = (uint32_t)program;
    attributes.link_create.target_fd = (uint32_t)cgroup;
    attributes.link_create.attach_type = BPF_CGROUP_SOCK_OPS;
    return bpf(BPF_LINK_CREATE, &attributes);
}
