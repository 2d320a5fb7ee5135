# The shell scripts parse, in the shell they name; ShellCheck, where it is installed, finds no
# errors.

lint()
{
    for file in quickstart .ci/run client/check client/embed client/install client/make-pages \
        client/pages-for-dist etc/*.sh tests/chroot tests/*/run tests/e2e/valgrind \
        tests/fuzz/coverage tests/fuzz/minimize tests/lint/*.sh; do
        [ -f "$file" ] || continue
        case $(head -n 1 "$file") in
        '#!/bin/bash') bash -n "$file" 2>&1 ;;
        *) sh -n "$file" 2>&1 ;;
        esac
        case $file in
        *.sh) ;;
        *) [ -x "$file" ] || echo "$file: not executable" ;;
        esac
        if command -v shellcheck >/dev/null; then
            shellcheck -s sh -S error -f gcc "$file"
        fi
    done
}

expected=2
bad()
{
    mkdir .ci
    printf '#!/bin/sh\nif true; then\n' >quickstart
    chmod +x quickstart
    printf '#!/bin/bash\n: <(true)\n' >.ci/run
}

. "$(dirname "$0")/lib.sh"
