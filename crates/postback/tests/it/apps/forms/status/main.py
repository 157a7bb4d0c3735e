def teapot(code):
    return {"status_code": code}


def text_of_a_code():
    return {"status_code": "200"}
