"""Which of two versions is better: verdicts that hold though one looks after every request."""
