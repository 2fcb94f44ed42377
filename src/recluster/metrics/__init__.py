"""What is measured of a cluster, and who is told. Looks only, changes nothing.

`census` and `procfacts` ask the kernel, `tally` counts events, `status` is the cluster as JSON,
`measures` its text for Prometheus, `exporter` the HTTP server for that. May import the
population's nouns, the choices of the start and what is below them.
"""
