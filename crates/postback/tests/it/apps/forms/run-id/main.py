def run(run_id):
    return run_id


def blind(n=1):
    return n
