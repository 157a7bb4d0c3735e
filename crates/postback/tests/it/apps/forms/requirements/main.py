import pydantic


def run():
    return pydantic.VERSION.split(".")[0] in ("1", "2")
