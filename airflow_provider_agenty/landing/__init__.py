"""From a download, or the rows of a result, to a verified file at its destination."""
