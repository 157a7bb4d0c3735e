def run():
    with open("before.txt") as before, open("after.txt") as after:
        return [before.read(), after.read()]
