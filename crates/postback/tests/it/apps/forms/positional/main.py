def run(a, b=2, /, *, c):
    return [a, b, c]
