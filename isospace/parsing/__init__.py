"""HTML and PDF, parsed in a process of their own that may take no more than so much time and memory."""
