/*
 * belfryctl.c - the tool for people: main() only. What it does stands in ctl_*.c; see belfryctl(1).
 */
#include "config.h"

#include "src/ctl.h"

int main(int argc, char **argv)
{
    return ctl_main(argc, argv);
}
