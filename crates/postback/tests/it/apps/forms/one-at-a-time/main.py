"""`replica_concurrency = 1`: nobody else is inside."""

import threading
import time

inside = 0


def run():
    global inside
    inside += 1
    most = inside
    time.sleep(0.01)
    inside -= 1
    return [most, threading.current_thread() is threading.main_thread()]
