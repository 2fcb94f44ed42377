"""What `recluster init` prints: files for whoever starts a cluster, or stands in front of it.

A file per kind; each is made of a `subject`, the program and its options, and of nothing else.
May import `cli`, the options and what names a program.
"""
