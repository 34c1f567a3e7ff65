"""The shared part of asset watchers: the jobs of an account, and which of them each watcher has seen."""
