/* registry.c - the small things that every part of the engine asks for.
 *
 * Owns: finding a worker by its id, putting an event into the caller's array, and
 * memory that must live until the turn is over. Knows nobody.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rc_worker *rc_find(struct rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = engine->workers;
    while (worker && worker->id != id)
        worker = worker->next;
    return worker;
}

void rc_emit(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
             const char *text, size_t length)
{
    struct rc_output *output = engine->output;
    if (output && output->count < output->room)
        output->events[output->count++] = (struct rc_event){
            .kind = kind, .worker = worker, .value = value, .text = text, .length = length};
}

/* Of one worker's one after the other, where it is being found out whether it accepts, one
 * event is made: they come by the hundred, and nothing is done about each. */
static struct rc_event *last_like(const struct rc_output *output, enum rc_event_kind kind,
                                  uint32_t worker, int value)
{
    struct rc_event *last = output && output->count ? &output->events[output->count - 1] : NULL;
    bool like = last && kind == RC_EVENT_LISTENING && value == 2 && last->kind == kind &&
                last->worker == worker && last->value == value;
    return like ? last : NULL;
}

/* The text must live until the caller has it. */
void rc_emit_place(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                   const char *place)
{
    if (engine->text_count == RC_TEXTS)
        return;
    struct rc_event *like = last_like(engine->output, kind, worker, value);
    char *text = engine->texts + RC_TEXT_ROOM * engine->text_count++;
    if (like) /* behind it, and before what it has of its own place */
        text = engine->texts + (like->text - engine->texts) + like->length + 1;
    snprintf(text, RC_TEXT_ROOM, "%s", place);
    if (like)
        like->length += 1 + strlen(text);
    else
        rc_emit(engine, kind, worker, value, text, strlen(text));
}

/* As it is named in events and in `status`. */
void rc_emit_key(struct rc_engine *engine, enum rc_event_kind kind, uint32_t worker, int value,
                 const struct rc_key *key)
{
    char text[128];
    rc_key_text(key, text, sizeof text);
    rc_emit_place(engine, kind, worker, value, text);
}

void rc_bury(struct rc_engine *engine, void *memory)
{
    struct rc_grave *grave = memory;
    grave->next = engine->graves;
    engine->graves = grave;
}

void rc_free_graves(struct rc_engine *engine)
{
    while (engine->graves) {
        struct rc_grave *grave = engine->graves;
        engine->graves = grave->next;
        free(grave);
    }
}
