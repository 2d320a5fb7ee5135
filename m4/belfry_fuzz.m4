# BELFRY_FUZZ
# FUZZ_CC: a clang that has libFuzzer, for `make fuzz`, which configures a build of its own with
# it; empty where there is none. --enable-fuzz is what that build is configured with: everything is
# instrumented, and the targets get libFuzzer's main (FUZZ_MAIN) instead of replay.c's.
# Must come after BELFRY_SANITIZERS, whose flags it adds to.
AC_DEFUN([BELFRY_FUZZ], [
AC_ARG_ENABLE([fuzz],
    [AS_HELP_STRING([--enable-fuzz], [build the fuzz targets for libFuzzer (make fuzz does)])],
    [], [enable_fuzz=no])
AC_ARG_VAR([FUZZ_CC], [the clang that make fuzz uses])
AC_ARG_VAR([FUZZ_COV], [the llvm-cov that make fuzz-coverage uses])

# --enable-coverage is gcc's; clang's own says more and can be read per target.
AC_DEFUN([BELFRY_TRY_FUZZ_CC], [
    belfry_save_CC=$CC
    belfry_save_CFLAGS=$CFLAGS
    CC=$FUZZ_CC
    CFLAGS="-fsanitize=fuzzer,address,undefined"
    AC_LINK_IFELSE([AC_LANG_SOURCE([[
#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    return data && size ? 0 : 0;
}
]])], [$1], [$2])
    CC=$belfry_save_CC
    CFLAGS=$belfry_save_CFLAGS
])

AC_CHECK_PROGS([FUZZ_CC], [clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14])
belfry_fuzz_summary="no clang: make check replays the corpora, make fuzz does not work"
AS_IF([test -n "$FUZZ_CC"],
    [AC_MSG_CHECKING([whether $FUZZ_CC has libFuzzer])
     BELFRY_TRY_FUZZ_CC(
         [AC_MSG_RESULT([yes])
          belfry_fuzz_summary="make fuzz, with $FUZZ_CC"],
         [AC_MSG_RESULT([no])
          belfry_fuzz_summary="$FUZZ_CC has no libFuzzer: make fuzz does not work"
          FUZZ_CC=])])
AC_CHECK_PROGS([FUZZ_COV], [llvm-cov llvm-cov-20 llvm-cov-19 llvm-cov-18 llvm-cov-17 llvm-cov-16 llvm-cov-15 llvm-cov-14])

FUZZ_MAIN=
AS_IF([test "x$enable_fuzz" = xyes],
    [SAN_CFLAGS="$SAN_CFLAGS -fsanitize=fuzzer-no-link"
     SAN_LDFLAGS="$SAN_LDFLAGS -fsanitize=fuzzer-no-link"
     FUZZ_MAIN=-fsanitize=fuzzer
     belfry_fuzz_summary="this is its build"])
AC_SUBST([FUZZ_MAIN])
AM_CONDITIONAL([FUZZ], [test "x$enable_fuzz" = xyes])
])
