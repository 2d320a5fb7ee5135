# BELFRY_LLHTTP
# llhttp comes as a library (pkg-config libllhttp), or as three C files that we compile: those of
# --with-llhttp-source=DIR, else those that Debian 12's package node-llhttp installs.
#
# Sets LLHTTP_CFLAGS (what http.c needs either way), and LLHTTP_LIBS in the first case, in the
# second LLHTTP_SOURCE (where api.c, http.c and llhttp.c are) and the conditional COMPILE_LLHTTP.
AC_DEFUN([BELFRY_LLHTTP], [
AC_ARG_WITH([llhttp-source],
    [AS_HELP_STRING([--with-llhttp-source=DIR],
        [compile llhttp from DIR (api.c, http.c, llhttp.c; llhttp.h there, in DIR/../include or in
         DIR/../include/llhttp) instead of using the library])],
    [], [with_llhttp_source=])

LLHTTP_SOURCE=
belfry_llhttp_why=
AS_CASE([$with_llhttp_source],
    [yes], [AC_MSG_ERROR([--with-llhttp-source needs a directory])],
    [''|no],
        [PKG_CHECK_MODULES([LLHTTP], [libllhttp],
            [belfry_llhttp_summary="`$PKG_CONFIG --modversion libllhttp` (library)"],
            [LLHTTP_SOURCE=/usr/share/llhttp
             belfry_llhttp_why="pkg-config does not know libllhttp, and "])],
    [AS_CASE([$with_llhttp_source], [/*], [LLHTTP_SOURCE=$with_llhttp_source],
        [LLHTTP_SOURCE=`cd "$with_llhttp_source" && pwd` ||
            AC_MSG_ERROR([--with-llhttp-source: no directory $with_llhttp_source])])])

AS_IF([test -n "$LLHTTP_SOURCE"], [
    AC_MSG_CHECKING([for llhttp's C sources])
    for belfry_file in api.c http.c llhttp.c; do
        AS_IF([test -r "$LLHTTP_SOURCE/$belfry_file"], [],
            [AC_MSG_RESULT([no])
             AC_MSG_ERROR([${belfry_llhttp_why}there is no $LLHTTP_SOURCE/$belfry_file
(Debian packages: libllhttp-dev from 13 on, node-llhttp in 12; or --with-llhttp-source=DIR)])])
    done
    AC_MSG_RESULT([$LLHTTP_SOURCE])

    AC_MSG_CHECKING([for llhttp.h beside them])
    belfry_llhttp_include=
    for belfry_dir in "$LLHTTP_SOURCE" "$LLHTTP_SOURCE/../include" \
        "$LLHTTP_SOURCE/../include/llhttp"; do
        AS_IF([test -z "$belfry_llhttp_include" && test -r "$belfry_dir/llhttp.h"],
            [belfry_llhttp_include=`cd "$belfry_dir" && pwd`])
    done
    AS_IF([test -n "$belfry_llhttp_include"], [AC_MSG_RESULT([$belfry_llhttp_include])],
        [AC_MSG_RESULT([no])
         AC_MSG_ERROR([llhttp.h stands neither in $LLHTTP_SOURCE nor in ../include from there])])

    # -isystem: its warnings are not ours. Strict mode is a compile-time choice up to llhttp 8 and
    # the only mode from 9 on; choosing it makes both parse alike.
    LLHTTP_CFLAGS="-isystem $belfry_llhttp_include -DLLHTTP_STRICT_MODE=1"
    belfry_llhttp_version=`$SED -n 's/^#define LLHTTP_VERSION_.* //p' \
        "$belfry_llhttp_include/llhttp.h" | tr '\n' '.'`
    belfry_llhttp_summary="${belfry_llhttp_version%.} (compiled from $LLHTTP_SOURCE)"
])
AC_SUBST([LLHTTP_SOURCE])
AC_SUBST([LLHTTP_CFLAGS])
AC_SUBST([LLHTTP_LIBS])
AM_CONDITIONAL([COMPILE_LLHTTP], [test -n "$LLHTTP_SOURCE"])
])
