"""The benchmark: this project and its peers, side by side on the local stack; see bench.py."""
