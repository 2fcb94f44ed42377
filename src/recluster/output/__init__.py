"""Lines out: the log, what workers write, `--events`.

Owns descriptors that may be full, and never waits for one: `outlet` writes, `sink` keeps what did
not fit, `streams` says where it goes, `formats` what a line looks like, `eventlog` what the log
says.
May import the population's nouns, events and options; not the master.
"""
