"""The hook: the connection to Agenty and its calls."""
