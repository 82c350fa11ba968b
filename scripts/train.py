"""Train, validate, test and predict with a narrowing flow: ``python scripts/train.py fit --config configs/digits.yaml``."""

from cnflow.app.cli import console

if __name__ == "__main__":
    console()
