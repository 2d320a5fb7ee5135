# The model checker finds bugs: each mutant is the code with one bug put in on purpose, and the
# checker must say so. A mutant is one source file changed by sed, compiled, and linked in front of
# the library that has the real one.
#
# MODEL_COMPILE, MODEL_LINK, MODEL_OBJECTS and MODEL_LIBS come from tests/local.mk.

top=${srcdir:-.}
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 99' HUP INT TERM
failed=0

# mutant NAME FILE SCENARIO SED
mutant()
{
    changed=$work/$1.c
    sed "$4" "$top/workers/$2" >"$changed" || exit 99
    if cmp -s "$top/workers/$2" "$changed"; then
        echo "$1: workers/$2 has not the line that is to be changed"
        failed=1
        return
    fi
    # shellcheck disable=SC2086 # lists of words
    if ! { $MODEL_COMPILE -I. -I"$top" -c "$changed" -o "$work/$1.o" &&
        $MODEL_LINK -o "$work/$1" $MODEL_OBJECTS "$work/$1.o" $MODEL_LIBS; } >"$work/out" 2>&1; then
        sed "s/^/$1: /" "$work/out"
        failed=1
        return
    fi
    timeout 60 "$work/$1" --scenario="$3" >"$work/out" 2>&1
    status=$?
    if [ $status -eq 1 ]; then
        sed -n "s/^# *VIOLATED:/$1: caught:/p" "$work/out"
    else
        echo "$1: not caught (exit status $status)"
        failed=1
    fi
    rm -f "$work/$1" "$work/$1".*
}

mutant repeats-pass recent.c alone \
    '/^bool recent_is_repeat/,/^}/s/^{/{ return false;/'
mutant read-before-subscribe session_read.c alone \
    's/u->subscription != SUBSCRIPTION_CONFIRMED || u->reading/u->reading/'
mutant held-dropped-on-attach session_apply.c alone \
    '/^static void attach(/,/^}/s/give(a, d, &held/r.held_count = older = 0, &/'
mutant held-dropped-on-repair session_apply.c alone \
    '/^static void catch_up(/,/^}/s/give(a, d, &held/r.held_count = older = 0, &/'
mutant live-before-full-sync session_live.c alone \
    '/^void session_relay_to(/,/^}/s/d->state == DEVICE_LIVE/d->state != DEVICE_NONE/'
mutant no-repair session.c alone \
    's/d->state = DEVICE_REPAIRING;/;/'
mutant reading-survives-the-link session.c alone \
    '/^static void begin_repair/,/^}/s/session_cancel_reading(data, u);//'
mutant served-by-an-older-reading session_apply.c alone \
    's/d->state == DEVICE_ATTACHING && in_reading/d->state == DEVICE_ATTACHING/'
mutant list-not-remembered session_apply.c alone \
    's/^    remember(a);//'
mutant one-missed-too-few merge.c alone \
    '/^struct merge_result merge_attach/,/^}/s/at + 1/at + 2/;s/k > at)/k > at + 1)/'
mutant janitor-ignored merge.c janitor \
    's/if (is_reversed(/if (0 \&\& is_reversed(/'
mutant spoiled-reading-serves session_live.c flooded \
    's/d->user->is_spoiled = true;/;/'
mutant rest-not-owed session_lag.c slow \
    's/owe_rest(v, sent);/owe_rest(v, v->result.missed_count);/'
mutant failed-reading-forgotten session_read.c errors \
    '/^static void fail(/,/^}/s/session_retry_later(s);/;/'
mutant link-not-awaited session_read.c trimmed \
    's/a->is_settled || !session_is_ahead/1 || !session_is_ahead/'
mutant answer-survives-the-link session_read.c busy \
    '/^void session_cancel_reading/,/^}/s/session_answer_free(u->answer);//'
mutant marker-not-awaited marker.c trimmed \
    '/^void marker_want/,/^}/s/m->published + 1/m->published/'
mutant left-out-forgotten session_apply.c unreplayed \
    '/^static int leave_out/,/^}/s/session_leave_out(d, ids, count)/0/'
mutant older-held-last session_apply.c trimmed \
    '/^static size_t put_older_first/,/^}/s/return older;/return 0;/'
mutant gap-not-told session_apply.c trimmed \
    '/^static bool was_cut/,/^}/s/return true;/return false;/'
mutant cut-not-told session_lag.c slow-trimmed \
    '/^static bool was_cut/,/^}/s/return [^f].*;/return false;/'
mutant held-leaks session.c alone \
    '/^void session_close/,/^}/s/held_free(device_take_held(d));//'

exit $failed
