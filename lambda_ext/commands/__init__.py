"""The commands of `lambda-ext`: each has a file, with its arguments and what it does."""
