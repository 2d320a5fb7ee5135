# Every source file stands in its folder's local.mk: one that does not is neither built nor in the
# tarball, and only distcheck would notice.

lint()
{
    for folder in shared workers src; do
        for file in $folder/*.c $folder/*.h $folder/*.def; do
            [ -f "$file" ] || continue
            grep -qE "(^|[[:space:]])$file([[:space:]]|\$)" $folder/local.mk ||
                echo "$file: not in $folder/local.mk"
        done
    done
    find client -type f 2>/dev/null | grep -vE '^client/(node_modules|dist|pages/dist)/|\.tgz$' |
        while read -r file; do
            grep -qE "(^|[[:space:]])$file([[:space:]]|\$)" client/local.mk ||
                echo "$file: not in client/local.mk"
        done
    for file in tests/*.c tests/*/*.[ch] tests/e2e/*.py tests/lint/*.sh man/*.[1-9]; do
        [ -f "$file" ] || continue
        name=$file
        case $file in tests/unit/check_*.c | tests/fuzz/fuzz_*.c) name=${file%.c} ;; esac
        cat tests/local.mk tests/*/local.mk man/local.mk 2>/dev/null |
            grep -qE "(^|[[:space:]])$name([[:space:]]|\$)" ||
            echo "$file: not in local.mk"
    done
}

expected=4
bad()
{
    mkdir -p shared tests/unit man client/src client/node_modules
    touch client/src/a.ts client/src/b.ts client/node_modules/c.ts
    echo 'EXTRA_DIST += client/local.mk client/src/a.tsx client/src/b.ts' >client/local.mk
    touch shared/a.c shared/b.c tests/unit/check_a.c man/local.mk man/belfryd.8
    echo 'shared_libshared_la_SOURCES = shared/a.cc shared/b.c' >shared/local.mk
    echo 'unit_tests = tests/unit/check_ab' >tests/local.mk
}

. "$(dirname "$0")/lib.sh"
