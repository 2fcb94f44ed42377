/* text.c - records of what is carried, as lines of text: a word, and each field as NAME=VALUE.
 *
 * Owns the format. Numbers are decimal, bytes hexadecimal. Does not own what a record means.
 *
 * Invariant: a record is read whole, each of its fields in its place, or not at all: a version
 * that knows another field, or another order, says which one it misses.
 */
#include "carry/carry.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct field {
    const char *name;
    size_t at;
    bool bytes;
};

#define RECORD rc_carried_engine
#define NUMBER(name) {#name, offsetof(struct RECORD, name), false},
#define BYTES(name) {#name, offsetof(struct RECORD, name), true},
static const struct field ENGINE[] = {RC_ENGINE_RECORD(NUMBER, BYTES){NULL, 0, false}};
#undef RECORD
#define RECORD rc_carried_worker
static const struct field WORKER[] = {RC_WORKER_RECORD(NUMBER, BYTES){NULL, 0, false}};
#undef RECORD
#define RECORD rc_carried_group
static const struct field GROUP[] = {RC_GROUP_RECORD(NUMBER, BYTES){NULL, 0, false}};
#undef RECORD
#define RECORD rc_carried_lane
static const struct field LANE[] = {RC_LANE_RECORD(NUMBER, BYTES){NULL, 0, false}};
#undef RECORD
#define RECORD rc_carried_unix
static const struct field LOCAL[] = {RC_UNIX_RECORD(NUMBER, BYTES){NULL, 0, false}};

static const struct {
    const char *word;
    const struct field *fields;
} KINDS[RC_CARRIED_KINDS] = {
    [RC_CARRIED_NONE] = {"", NULL},           [RC_CARRIED_ENGINE] = {"engine", ENGINE},
    [RC_CARRIED_WORKER] = {"worker", WORKER}, [RC_CARRIED_GROUP] = {"group", GROUP},
    [RC_CARRIED_LANE] = {"lane", LANE},       [RC_CARRIED_UNIX] = {"unix", LOCAL},
};

static const char DIGITS[] = "0123456789abcdef";

/* ---- writing ---------------------------------------------------------------------------- */

static char *more(struct rc_carry_text *text, size_t length)
{
    if (text->failed)
        return NULL;
    if (text->length + length > text->room) {
        size_t room = (text->length + length) * 2;
        char *bytes = realloc(text->bytes, room);
        text->failed = !bytes;
        if (!bytes)
            return NULL;
        text->bytes = bytes;
        text->room = room;
    }
    text->length += length;
    return text->bytes + text->length - length;
}

static void put(struct rc_carry_text *text, const char *word)
{
    size_t length = strlen(word);
    char *to = more(text, length);
    if (to)
        memcpy(to, word, length);
}

static void put_bytes(struct rc_carry_text *text, const struct rc_bytes *bytes)
{
    char *to = more(text, 2 * bytes->length);
    for (size_t at = 0; to && at < bytes->length; at++) {
        *to++ = DIGITS[(unsigned char)bytes->at[at] >> 4];
        *to++ = DIGITS[(unsigned char)bytes->at[at] & 15];
    }
}

void rc_carry_write(struct rc_carry_text *text, const struct rc_carried *record)
{
    put(text, KINDS[record->kind].word);
    for (const struct field *field = KINDS[record->kind].fields; field->name; field++) {
        const void *value = (const char *)&record->is + field->at;
        char number[32];
        put(text, " ");
        put(text, field->name);
        put(text, "=");
        if (field->bytes) {
            put_bytes(text, value);
        } else {
            (void)snprintf(number, sizeof number, "%" PRId64, *(const int64_t *)value);
            put(text, number);
        }
    }
    put(text, "\n");
}

/* ---- reading ---------------------------------------------------------------------------- */

static bool take(const char **at, const char *end, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(end - *at) < length || memcmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

static bool take_number(const char **at, const char *end, int64_t *out)
{
    char digits[32], *rest;
    size_t length = 0;
    while (*at + length < end && length < sizeof digits - 1 && strchr("-0123456789", (*at)[length]))
        length++;
    memcpy(digits, *at, length);
    digits[length] = '\0';
    errno = 0;
    *out = strtoll(digits, &rest, 10);
    *at += length;
    return length && !*rest && !errno;
}

static int digit(char one)
{
    const char *found = one ? strchr(DIGITS, one) : NULL;
    return found ? (int)(found - DIGITS) : -1;
}

static bool take_bytes(const char **at, const char *end, struct rc_bytes *out)
{
    const char *from = *at;
    size_t length = 0;
    while (from + length < end && digit(from[length]) >= 0)
        length++;
    *at += length;
    *out = (struct rc_bytes){.at = malloc(length / 2 + 1), .length = length / 2};
    for (size_t byte = 0; out->at && byte < length / 2; byte++)
        out->at[byte] = (char)(digit(from[2 * byte]) << 4 | digit(from[2 * byte + 1]));
    return out->at && length % 2 == 0;
}

static const char *take_fields(const char **at, const char *end, struct rc_carried *out)
{
    for (const struct field *field = KINDS[out->kind].fields; field->name; field++) {
        void *value = (char *)&out->is + field->at;
        if (!take(at, end, " ") || !take(at, end, field->name) || !take(at, end, "=") ||
            !(field->bytes ? take_bytes(at, end, value) : take_number(at, end, value)))
            return field->name;
    }
    return take(at, end, "\n") ? NULL : "the end of a record";
}

/* The next record, or RC_CARRIED_NONE at the end; -EINVAL: what was `missed`. The caller frees
 * what is there in both cases. */
int rc_carry_read(const char **at, const char *end, struct rc_carried *out, const char **missed)
{
    memset(out, 0, sizeof *out);
    if (*at == end)
        return 0;
    for (enum rc_carried_kind kind = RC_CARRIED_ENGINE; kind < RC_CARRIED_KINDS; kind++)
        if (take(at, end, KINDS[kind].word)) {
            out->kind = kind;
            *missed = take_fields(at, end, out);
            return *missed ? -EINVAL : 0;
        }
    *missed = "a record that is known";
    return -EINVAL;
}

void rc_carried_free(struct rc_carried *record)
{
    for (const struct field *field = KINDS[record->kind].fields; field && field->name; field++)
        if (field->bytes)
            free(((struct rc_bytes *)(void *)((char *)&record->is + field->at))->at);
    memset(record, 0, sizeof *record);
}
