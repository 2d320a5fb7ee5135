# BELFRY_HARDENING
# Sets HARDEN_CPPFLAGS, HARDEN_CFLAGS, HARDEN_LDFLAGS (programs and libraries) and PIE_LDFLAGS
# (programs only: a shared library cannot be linked with -pie). --disable-hardening drops them.
# Must come after BELFRY_SANITIZERS.
AC_DEFUN([BELFRY_HARDENING], [
AC_REQUIRE([BELFRY_SANITIZERS])
AC_ARG_ENABLE([hardening],
    [AS_HELP_STRING([--disable-hardening], [leave out stack protector, PIE, RELRO and friends])],
    [], [enable_hardening=yes])

HARDEN_CPPFLAGS= HARDEN_CFLAGS= HARDEN_LDFLAGS= PIE_LDFLAGS=
belfry_hardening_summary=no
AS_IF([test "x$enable_hardening" != xno], [
    belfry_hardening_summary=yes
    BELFRY_TRY_CFLAG([HARDEN_CFLAGS], [-fstack-protector-strong])
    BELFRY_TRY_CFLAG([HARDEN_CFLAGS], [-fstack-clash-protection])
    BELFRY_TRY_CFLAG([HARDEN_CFLAGS], [-fcf-protection])
    BELFRY_TRY_CFLAG([HARDEN_CFLAGS], [-fPIE])
    BELFRY_TRY_LDFLAG([PIE_LDFLAGS], [-pie], [-fPIE])
    m4_foreach([flag], [[-Wl,-z,relro], [-Wl,-z,now], [-Wl,-z,noexecstack]],
        [BELFRY_TRY_LDFLAG([HARDEN_LDFLAGS], m4_quote(flag))])

    # The library's checks need the optimiser, contradict AddressSanitizer, and may be set already
    # by the compiler or by the user's own CPPFLAGS.
    AS_IF([test "x$enable_asan" = xyes],
        [belfry_hardening_summary="yes, without _FORTIFY_SOURCE (AddressSanitizer)"],
        [AC_MSG_CHECKING([whether to define _FORTIFY_SOURCE])
         AC_COMPILE_IFELSE([AC_LANG_SOURCE([[
#if !defined __OPTIMIZE__ || defined _FORTIFY_SOURCE
#error no
#endif
]])],
            [AC_MSG_RESULT([yes])
             HARDEN_CPPFLAGS="-D_FORTIFY_SOURCE=2"],
            [AC_MSG_RESULT([no (not optimising, or defined already)])])])
])

# For libbelfry: a symbol that none of its sources defines fails the link here, not at a
# backend's. The sanitizers' runtime is found only when the program is linked.
DEFS_LDFLAGS=
AS_IF([test -z "$SAN_CFLAGS"], [BELFRY_TRY_LDFLAG([DEFS_LDFLAGS], [-Wl,-z,defs])])
AC_SUBST([DEFS_LDFLAGS])
AC_SUBST([HARDEN_CPPFLAGS])
AC_SUBST([HARDEN_CFLAGS])
AC_SUBST([HARDEN_LDFLAGS])
AC_SUBST([PIE_LDFLAGS])
])
