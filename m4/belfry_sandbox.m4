# BELFRY_SANDBOX
# --without-seccomp: the workers' sandbox (workers/sandbox.c). Defines ENABLE_SANDBOX, and
# HAVE_LIBSECCOMP with SECCOMP_CFLAGS and SECCOMP_LIBS. Comes after BELFRY_SANITIZERS and
# BELFRY_COVERAGE: their run-time libraries open files and start programs.
AC_DEFUN([BELFRY_SANDBOX], [
AC_ARG_WITH([seccomp],
    [AS_HELP_STRING([--without-seccomp], [do not filter the workers' system calls])],
    [], [with_seccomp=auto])
belfry_sandbox_summary="no (sanitizers and coverage need more than it allows)"
AS_IF([test -z "$SAN_CFLAGS$COVERAGE_CFLAGS"],
    [AC_DEFINE([ENABLE_SANDBOX], [1], [Define if workers can enter a sandbox.])
     belfry_seccomp="as asked without seccomp"
     AS_IF([test "x$with_seccomp" != xno],
        [PKG_CHECK_MODULES([SECCOMP], [libseccomp >= 2.5],
            [belfry_seccomp=seccomp
             AC_DEFINE([HAVE_LIBSECCOMP], [1], [Define if libseccomp is here.])],
            [AS_IF([test "x$with_seccomp" = xyes], [AC_MSG_ERROR([--with-seccomp: not found])])
             belfry_seccomp="without seccomp: libseccomp not found"])])
     belfry_sandbox_summary="Landlock, $belfry_seccomp"])
])
