# BELFRY_COVERAGE
# --enable-coverage: sets COVERAGE_CFLAGS and COVERAGE_LDFLAGS. Counters are updated atomically,
# because the master and the workers are forks of one image that write the same .gcda files.
AC_DEFUN([BELFRY_COVERAGE], [
AC_ARG_ENABLE([coverage],
    [AS_HELP_STRING([--enable-coverage], [build for gcov (use with CFLAGS=-O0)])],
    [], [enable_coverage=no])
COVERAGE_CFLAGS= COVERAGE_LDFLAGS=
AS_IF([test "x$enable_coverage" = xyes],
    [COVERAGE_CFLAGS="--coverage"
     COVERAGE_LDFLAGS="--coverage"
     BELFRY_TRY_CFLAG([COVERAGE_CFLAGS], [-fprofile-update=atomic])])
AC_SUBST([COVERAGE_CFLAGS])
AC_SUBST([COVERAGE_LDFLAGS])
])
