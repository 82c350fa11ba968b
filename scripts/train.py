"""Train, validate, test and predict with a narrowing flow: ``python scripts/train.py fit --config configs/digits.yaml``."""

from cnflow.app.cli import main

if __name__ == "__main__":
    main()
