# BELFRY_SANITIZERS
# --enable-asan, --enable-ubsan: sets SAN_CFLAGS and SAN_LDFLAGS. Undefined behaviour is fatal in
# such a build: a test that only prints a complaint is a test that passes.
AC_DEFUN([BELFRY_SANITIZERS], [
AC_ARG_ENABLE([asan],
    [AS_HELP_STRING([--enable-asan], [build with AddressSanitizer and LeakSanitizer])],
    [], [enable_asan=no])
AC_ARG_ENABLE([ubsan],
    [AS_HELP_STRING([--enable-ubsan], [build with UndefinedBehaviorSanitizer])],
    [], [enable_ubsan=no])

SAN_CFLAGS=
AS_IF([test "x$enable_asan" = xyes], [SAN_CFLAGS="$SAN_CFLAGS -fsanitize=address"])
AS_IF([test "x$enable_ubsan" = xyes],
    [SAN_CFLAGS="$SAN_CFLAGS -fsanitize=undefined -fno-sanitize-recover=undefined"])
SAN_LDFLAGS=$SAN_CFLAGS
belfry_sanitizers_summary=no
AS_IF([test -n "$SAN_CFLAGS"],
    [SAN_CFLAGS="$SAN_CFLAGS -fno-omit-frame-pointer"
     belfry_save_CFLAGS=$CFLAGS
     CFLAGS="$CFLAGS $SAN_CFLAGS"
     AC_MSG_CHECKING([whether$SAN_LDFLAGS links])
     AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])],
         [AC_MSG_RESULT([no])
          AC_MSG_ERROR([the sanitizers asked for do not link: is their runtime library installed?])])
     CFLAGS=$belfry_save_CFLAGS
     belfry_sanitizers_summary=$SAN_LDFLAGS])
AC_SUBST([SAN_CFLAGS])
AC_SUBST([SAN_LDFLAGS])
AM_CONDITIONAL([SANITIZED], [test -n "$SAN_CFLAGS"])
])
