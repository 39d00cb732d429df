"""Score tables as pages to look at; nothing here decides a number."""
