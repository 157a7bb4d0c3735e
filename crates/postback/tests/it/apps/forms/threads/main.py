"""The same with plain functions, which run in threads."""

import threading

meeting = threading.Barrier(3)


def meet(run_id):
    meeting.wait(50)
    return run_id
