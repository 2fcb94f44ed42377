/* sockets.h - sockets and their addresses. Bottom: knows nobody.
 */
#ifndef RECLUSTER_SOCKETS_H
#define RECLUSTER_SOCKETS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* What makes two listening addresses one group. */
struct rc_key {
    struct sockaddr_in6 address; /* a sockaddr_in lies in it zero-padded */
    int v6only;
    int device;
    int type;         /* SOCK_STREAM, SOCK_DGRAM */
    uint64_t network; /* the namespace's cookie; 0: the master's own */
    uid_t uid;
};

int rc_socket_get(int fd, int level, int name);
int rc_socket_set(int fd, int level, int name, int value);
bool rc_socket_readable(int fd);
unsigned rc_backlog_for(int asked);
int rc_widen(int listener, unsigned *backlog, int asked);
uint64_t rc_socket_inode(int fd);
int rc_socket_network(int fd, uint64_t *cookie);
bool rc_same_network(int one, int other);
int rc_socket_name(int fd, struct sockaddr_in6 *out);
int rc_address_canonical(const struct sockaddr_in6 *from, socklen_t length,
                         struct sockaddr_in6 *out);
socklen_t rc_address_length(const struct sockaddr_in6 *address);
void rc_address_text(const struct sockaddr_in6 *address, char *out, size_t room);
int rc_key_of(int fd, uint64_t home, const struct sockaddr_in6 *address, struct rc_key *key);
void rc_key_text(const struct rc_key *key, char *out, size_t room);
bool rc_same_place(const struct rc_key *a, const struct rc_key *b);

/* udpsocket.c */
bool rc_udp_connected(int fd);
void rc_udp_leave_groups(int fd);
void rc_udp_empty(int fd);
void rc_udp_ungroup(int fd);
void rc_udp_retire(int fd, const struct sockaddr_in6 *itself);

#endif
