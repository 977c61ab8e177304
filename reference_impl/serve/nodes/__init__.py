"""The deployment's processes, each one object that starts and stops; whether Ray or a test hosts them is left open."""
