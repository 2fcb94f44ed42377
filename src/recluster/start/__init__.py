"""What is chosen once, before the first worker, by what this system allows.

The door, who implements the balance policy, whom workers run as, the sockets that were there
before. Raises ClusterError where something that was asked for cannot be had. May import child,
systemd, options and base.
"""
