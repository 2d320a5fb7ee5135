# Includes go down the stairs: src -> workers -> shared, never back; names from the top of the tree;
# the header that backends install includes nothing of ours.

lint()
{
    for file in shared/*.[ch] workers/*.[ch] src/*.[ch] shared/*.def; do
        [ -f "$file" ] || continue
        case $file in
        shared/belfry.h) allowed='none' ;;
        shared/*) allowed='config.h|shared/' ;;
        workers/*) allowed='config.h|shared/|workers/' ;;
        src/*) allowed='config.h|shared/|workers/|src/' ;;
        esac
        grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" |
            grep -vE "include[[:space:]]*\"($allowed)" |
            sed "s#^#$file:#; s#\$#: may include $allowed only#"
        grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<(shared|workers|src)/' "$file" |
            sed "s#^#$file:#; s#\$#: our own headers are included with quotes#"
    done
    for file in shared/*.c workers/*.c src/*.c tests/*/*.c; do
        [ -f "$file" ] || continue
        first=$(grep -m1 -E '^[[:space:]]*#[[:space:]]*include' "$file")
        [ "$first" = '#include "config.h"' ] || echo "$file: config.h is not included first"
    done
}

expected=5
bad()
{
    mkdir shared workers src
    printf '#include "config.h"\n#include "workers/conn.h"\n' >shared/a.c
    printf '#include "config.h"\n#include "src/slots.h"\n' >workers/b.c
    printf '#include "shared/log.h"\n' >src/c.c
    printf '#include "shared/log.h"\n' >shared/belfry.h
    printf '#include <shared/log.h>\n' >src/c.h
}

. "$(dirname "$0")/lib.sh"
