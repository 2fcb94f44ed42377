/* due.h - what is done when the time of an alarm has come.
 */
#ifndef RECLUSTER_DUE_H
#define RECLUSTER_DUE_H

struct rc_engine;

/* due.c */
void rc_due(struct rc_engine *engine);

#endif
