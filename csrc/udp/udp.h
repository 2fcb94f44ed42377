/* udp.h - what the doors ask of UDP.
 */
#ifndef RECLUSTER_UDP_H
#define RECLUSTER_UDP_H

#include "base/parts.h"

#include <stdbool.h>

struct rc_answer;
struct rc_call;
struct rc_engine;
struct rc_group;
struct rc_key;
struct sockaddr_in6;

extern const struct rc_part rc_udp_part;

/* udp.c */
void rc_udp_bind(struct rc_engine *engine, const struct rc_call *call,
                 const struct sockaddr_in6 *address, struct rc_answer *answer);
int rc_udp_bind_next(int fd, const struct sockaddr_in6 *address);

/* udpside.c */
bool rc_udp_side(struct rc_engine *engine, const struct rc_call *call, struct rc_group *group,
                 struct rc_answer *answer);
void rc_udp_look(struct rc_engine *engine, struct rc_group *group, bool young);
void rc_udp_connects(struct rc_engine *engine, const struct rc_call *call);
bool rc_udp_all_own(struct rc_engine *engine, const struct rc_call *call, const struct rc_key *key);
void rc_udp_look_soon(struct rc_engine *engine);
void rc_udp_alarm(struct rc_engine *engine);

#endif
