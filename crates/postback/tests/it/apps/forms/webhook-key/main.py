"""Functions that declare the server's own key, and functions that do not."""


def plain(n):
    return n


def anything(**rest):
    return rest


def declared(n, webhook_endpoint=None):
    return [n, webhook_endpoint]
