"""What a configuration of nginx needs that anybody may start: Debian's folders are root's."""


def temporary(folder="."):
    """For `http`: where request bodies and answers go that do not fit in memory."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)
