# Asking the compiler and the linker whether they know a flag.

# BELFRY_TRY_CFLAG(VARIABLE, FLAG, [EXTRA-FLAGS-FOR-THE-QUESTION])
# Appends FLAG to VARIABLE if the compiler takes it without a warning. -Werror makes clang's
# "unknown warning option" count. The answer is cached under the flag's name.
AC_DEFUN([BELFRY_TRY_CFLAG], [
AS_VAR_PUSHDEF([cached], [belfry_cv_cflag_$2])
AC_CACHE_CHECK([whether $CC takes $2], [cached],
    [belfry_save_CFLAGS=$CFLAGS
     CFLAGS="$CFLAGS -Werror $3 $2"
     AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([cached], [yes])],
         [AS_VAR_SET([cached], [no])])
     CFLAGS=$belfry_save_CFLAGS])
AS_VAR_IF([cached], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cached])
])

# BELFRY_TRY_LDFLAG(VARIABLE, FLAG, [EXTRA-CFLAGS])
# The same for a flag of the link step.
AC_DEFUN([BELFRY_TRY_LDFLAG], [
AS_VAR_PUSHDEF([cached], [belfry_cv_ldflag_$2])
AC_CACHE_CHECK([whether the linker takes $2], [cached],
    [belfry_save_LDFLAGS=$LDFLAGS
     belfry_save_CFLAGS=$CFLAGS
     LDFLAGS="$LDFLAGS $2"
     CFLAGS="$CFLAGS -Werror $3"
     AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([cached], [yes])],
         [AS_VAR_SET([cached], [no])])
     CFLAGS=$belfry_save_CFLAGS
     LDFLAGS=$belfry_save_LDFLAGS])
AS_VAR_IF([cached], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cached])
])
