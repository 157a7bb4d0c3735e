from json import dumps


def run():
    return dumps(_hidden())


def _hidden():
    return "seen from inside"
