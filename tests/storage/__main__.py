"""`python -m storage`: have the servers of the tests, once, before anybody's clock runs."""

from storage.programs import hadoop, versitygw

if __name__ == "__main__":
    versitygw()
    hadoop()
