"""The built-in rules of bpgen, one file each, found through the entry-point group `bpgen.rules` like any other."""
