# man/: the manual.
# One file per line, sorted.

dist_man_MANS += \
    man/belfry-protocol.7 \
    man/belfry.conf.5 \
    man/belfryctl.1 \
    man/belfryd.8 \
    man/libbelfry.3
