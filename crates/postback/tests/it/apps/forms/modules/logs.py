NAME = "my logs"
