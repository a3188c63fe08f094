"""Work on parts of a collection on every core: in threads, in processes of this machine, or on a Ray cluster."""
