"""The control socket: where it is, what it is called, both of its ends.

`control` and `orders` are the master's end; `asking`, `masters` and `names` find a master and ask
it. `places` and `masters` import next to nothing, for a probe has 20 ms. May import metrics and
output, which answer; not the master, which is told through the cluster's methods.
"""
