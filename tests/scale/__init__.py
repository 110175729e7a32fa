"""What a user costs at 1, 5 and 10 million users, and a model that is held against it: `make scale`."""
