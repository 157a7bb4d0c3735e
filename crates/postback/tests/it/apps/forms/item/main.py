"""The contract of 2023: the whole body as `item`, with the webhook's address in it."""


def predict(item, run_id, logger):
    logger.info("predicting")
    return {"got": {key: value for key, value in item.items() if key != "webhook_endpoint"}, "run": run_id}
