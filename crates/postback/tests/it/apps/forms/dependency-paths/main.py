import pydantic


def run():
    return pydantic.BaseModel.__name__
