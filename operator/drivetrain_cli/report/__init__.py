"""A job as one page for a browser: pictures, and each of them as a table, too."""
