import logging
import sys

logging.basicConfig(level=logging.INFO)


def run():
    print("printed")
    print("complained", file=sys.stderr)
    logging.info("logged")
    return "said"
