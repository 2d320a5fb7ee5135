# Libraries that some distributions ship without a pkg-config file.

# BELFRY_LIBRARY(PREFIX, PC-NAME, HEADER, LIBRARY, FUNCTION, DEBIAN-PACKAGE)
# Sets PREFIX_CFLAGS and PREFIX_LIBS, from pkg-config or by looking for header and library.
AC_DEFUN([BELFRY_LIBRARY], [
PKG_CHECK_MODULES([$1], [$2], [],
    [AC_CHECK_HEADER([$3], [], [AC_MSG_ERROR([header <$3> not found (Debian package: $6)])])
     belfry_save_LIBS=$LIBS
     AC_CHECK_LIB([$4], [$5], [AS_VAR_SET([$1_LIBS], ["-l$4"])],
         [AC_MSG_ERROR([library $4 with $5 not found (Debian package: $6)])])
     AS_VAR_SET([$1_CFLAGS], [])
     LIBS=$belfry_save_LIBS])
])

# BELFRY_HEADER(HEADER, CFLAGS, DEBIAN-PACKAGE)
AC_DEFUN([BELFRY_HEADER], [
belfry_save_CPPFLAGS=$CPPFLAGS
CPPFLAGS="$CPPFLAGS $2"
AC_CHECK_HEADER([$1], [], [AC_MSG_ERROR([header <$1> not found (Debian package: $3)])])
CPPFLAGS=$belfry_save_CPPFLAGS
])
