# man/: the manual.
# One file per line, sorted.

dist_man_MANS +=
