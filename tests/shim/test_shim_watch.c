// test: links=shim_watched,ref,base
// Every kernel under the eyes of the watched shim (shim_watch.cc): no two accesses that a card might make at the same
// time where one is a store, no shared memory read that was not written, nothing that is not aligned. First that it
// sees such faults at all: small kernels with one each.
#include <string.h>

#include "check.h"
#include "ops/support_harness.h"
#include "planted.h"
#include "support_shim.h"

static void check_planted(void) {
    int count;
    const planted_fault *faults = planted_faults(&count);
    for (int i = 0; i < count; i++) {
        shim_expect_faults(true);
        faults[i].run();
        if (!faults[i].text)
            CHECK_THAT(shim_faults() == 0, "%s: %s", faults[i].what, shim_first_fault());
        else
            CHECK_THAT(shim_faults() > 0 && strstr(shim_first_fault(), faults[i].text), "%s: \"%s\"", faults[i].what,
                       shim_first_fault());
    }
    printf("%d planted\n", count);
}

static void check_setting(const op_setting *s) {
    op_run run;
    op_run_init_setting(&run, s);
    for (int aliased = 0; aliased < 2; aliased++) {
        shim_expect_faults(true);
        const char *fault = op_run_execute(&run, shim_backend());
        CHECK_THAT(!fault, "%s, %s: %s", pb_op_name(s->op), s->c->label, fault);
        CHECK_THAT(shim_faults() == 0, "%s, %s, %s, inputs without %#x%s: %s", pb_op_name(s->op), s->c->label,
                   pb_dtype_name(s->dtype), s->dropped, aliased ? ", in place" : "", shim_first_fault());
        if (aliased || !op_run_alias(&run)) break;
    }
    op_run_deinit(&run);
}

int main(void) {
    check_planted();
    CHECK_THAT(!fragments_fault(), "%s is not PTX's", fragments_fault());
    for (int op = 0; op < PB_OP_COUNT; op++)
        if (shim_has((pb_opcode)op)) op_each_setting((pb_opcode)op, check_setting);
    return CHECK_DONE();
}
