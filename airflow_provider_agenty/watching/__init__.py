"""What asset watchers share: the jobs of an account, and which of them each has seen."""
