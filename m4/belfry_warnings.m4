# BELFRY_WARNINGS
# Sets WARN_CFLAGS: what we want to hear from gcc and clang. CFLAGS stay the user's.
# --enable-werror makes each of them an error: for developers and CI, never the default, because
# next year's compiler knows more warnings than this year's.
AC_DEFUN([BELFRY_WARNINGS], [
AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat warnings as errors])], [], [enable_werror=no])

WARN_CFLAGS=
m4_foreach_w([flag],
    [-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
     -Wformat=2 -Wpointer-arith -Wwrite-strings -Wvla -Wundef
     -Wduplicated-cond -Wduplicated-branches -Wnull-dereference],
    [BELFRY_TRY_CFLAG([WARN_CFLAGS], flag)])

# libev's watchers inherit by sharing their first members, and its macros write through a pointer
# to the base struct. That is outside C's aliasing rules, so the whole program is built without
# the optimisation that relies on them.
LANG_CFLAGS=
BELFRY_TRY_CFLAG([LANG_CFLAGS], [-std=gnu11])
BELFRY_TRY_CFLAG([LANG_CFLAGS], [-fno-strict-aliasing])

belfry_warnings_summary="as warnings"
AS_IF([test "x$enable_werror" = xyes],
    [WARN_CFLAGS="$WARN_CFLAGS -Werror"
     belfry_warnings_summary="as errors"])
AC_SUBST([WARN_CFLAGS])
AC_SUBST([LANG_CFLAGS])
])
