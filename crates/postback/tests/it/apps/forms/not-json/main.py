import math


def nan():
    return [1, math.nan]


def thing():
    return {"a": object()}


def circle():
    values = []
    values.append(values)
    return values
