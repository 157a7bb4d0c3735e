NAME = "my frames"
