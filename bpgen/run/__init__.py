"""One run: its typed config, what is built from it, its folder, its life from start to end, and how it is read back."""
