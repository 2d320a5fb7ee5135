#include "config.h"

#include "shared/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static int64_t now_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t); /* cannot fail for these clocks */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return now_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_wall_us(void)
{
    return now_us(CLOCK_REALTIME);
}

int64_t clock_mono_ms(void)
{
    return now_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_mono_coarse_ms(void)
{
    return now_us(CLOCK_MONOTONIC_COARSE) / 1000;
}

int64_t clock_mono_us(void)
{
    return now_us(CLOCK_MONOTONIC);
}

/*
 * Days since 1970-01-01 and the proleptic Gregorian calendar. Years begin in March here, so that
 * the leap day is a year's last; an era is 400 years. gmtime_r and timegm are not used because they
 * take the time zone's lock.
 */
#define ERA_DAYS 146097
#define EPOCH_FROM_MARCH_0000_DAYS 719468

static int64_t days_of_date(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * ERA_DAYS + day_of_era - EPOCH_FROM_MARCH_0000_DAYS;
}

static void date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += EPOCH_FROM_MARCH_0000_DAYS;
    int64_t era = (days >= 0 ? days : days - (ERA_DAYS - 1)) / ERA_DAYS;
    int64_t day_of_era = days - era * ERA_DAYS;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month_from_march = (int)((5 * day_of_year + 2) / 153);
    *day = (int)(day_of_year - (153 * month_from_march + 2) / 5 + 1);
    *month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}

/* Decimal digits with leading zeros; every stamp and log line needs them, and snprintf is slow. */
static char *put_digits(char *p, int64_t n, int count)
{
    for (int i = count - 1; i >= 0; i--, n /= 10)
        p[i] = (char)('0' + n % 10);
    return p + count;
}

void clock_format_us(int64_t wall_us, bool with_zone, char out[CLOCK_ISO_BYTES])
{
    const int64_t day_us = INT64_C(86400000000);
    int64_t days = wall_us / day_us, rest = wall_us % day_us;
    if (rest < 0) {
        rest += day_us;
        days--;
    }
    int64_t year;
    int month, day;
    date_of_days(days, &year, &month, &day);
    /* The form has four digits (RFC 3339, section 1): years it cannot say become its nearest. */
    year = year < 0 ? 0 : year > 9999 ? 9999 : year;
    int64_t second = rest / 1000000;
    char *p = put_digits(out, year, 4);
    *p++ = '-';
    p = put_digits(p, month, 2);
    *p++ = '-';
    p = put_digits(p, day, 2);
    *p++ = 'T';
    p = put_digits(p, second / 3600, 2);
    *p++ = ':';
    p = put_digits(p, second / 60 % 60, 2);
    *p++ = ':';
    p = put_digits(p, second % 60, 2);
    *p++ = '.';
    p = put_digits(p, rest % 1000000, 6);
    if (with_zone)
        *p++ = 'Z';
    *p = '\0';
}

/* What is left to read. */
struct reader {
    const char *p;
    const char *end;
};

/* Exactly count digits; false otherwise. */
static bool read_number(struct reader *r, int count, int *out)
{
    if (r->end - r->p < count)
        return false;
    int n = 0;
    for (int i = 0; i < count; i++) {
        char c = *r->p++;
        if (c < '0' || c > '9')
            return false;
        n = n * 10 + (c - '0');
    }
    *out = n;
    return true;
}

static bool read_char(struct reader *r, const char *allowed)
{
    if (r->p == r->end || !*r->p || !strchr(allowed, *r->p))
        return false;
    r->p++;
    return true;
}

static int month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* ".123456789": up to nine digits, kept to the microsecond. */
static bool read_fraction(struct reader *r, int *us)
{
    *us = 0;
    if (!read_char(r, "."))
        return true;
    int digits = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++, digits++)
        if (digits < 6)
            *us = *us * 10 + (*r->p - '0');
    if (digits < 1 || digits > 9)
        return false;
    for (int i = digits; i < 6; i++)
        *us *= 10;
    return true;
}

/* Z, +hh:mm, +hhmm, +hh or nothing. */
static bool read_zone(struct reader *r, int *offset_s)
{
    *offset_s = 0;
    if (r->p == r->end || read_char(r, "Zz"))
        return true;
    bool negative = *r->p == '-';
    int hours, minutes = 0;
    if (!read_char(r, "+-") || !read_number(r, 2, &hours))
        return false;
    if (r->p < r->end) {
        read_char(r, ":");
        if (!read_number(r, 2, &minutes))
            return false;
    }
    if (hours > 23 || minutes > 59)
        return false;
    *offset_s = (hours * 3600 + minutes * 60) * (negative ? -1 : 1);
    return true;
}

int clock_parse_us(const char *s, size_t len, int64_t *wall_us)
{
    struct reader r = {s, s + len};
    int year, month, day, hour, minute, second, us, offset_s;
    if (!read_number(&r, 4, &year) || !read_char(&r, "-") || !read_number(&r, 2, &month) ||
        !read_char(&r, "-") || !read_number(&r, 2, &day) || !read_char(&r, "Tt ") ||
        !read_number(&r, 2, &hour) || !read_char(&r, ":") || !read_number(&r, 2, &minute) ||
        !read_char(&r, ":") || !read_number(&r, 2, &second) || !read_fraction(&r, &us) ||
        !read_zone(&r, &offset_s) || r.p != r.end)
        return -EINVAL;
    /* Second 60 is a leap second: it is read as the next one's beginning. */
    if (month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 ||
        minute > 59 || second > 60)
        return -EINVAL;
    int64_t seconds = days_of_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *wall_us = (seconds - offset_s) * 1000000 + us;
    return 0;
}
