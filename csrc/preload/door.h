/* door.h - what the files of the preload library share.
 *
 * Direction: shim, accept -> ring -> door.
 */
#ifndef RECLUSTER_PRELOAD_DOOR_H
#define RECLUSTER_PRELOAD_DOOR_H

#include "wire.h"

#include <sys/socket.h>

/* door.c */
int rc_plain_connect(int fd, const struct sockaddr *address, socklen_t length);
int rc_door_connect(const char *door, int patience, struct rc_wire_request *request);
int rc_door_send(int door, const struct rc_wire_request *request, int fd);
int rc_door_exchange(int door, const struct rc_wire_request *request, int fd,
                     struct rc_wire_reply *reply, int *replacement);

/* ring.c */
int rc_ring_joined(void);
int rc_ring_accept(int fd, struct sockaddr *address, socklen_t *length, int flags);

#endif
