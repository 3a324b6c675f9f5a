// test: links=shim,ref,base timeout=300
// The shim must be able to fail: with any one barrier of the kernels left out, some op gives other results in some
// order of its threads. That also shows that no barrier is superfluous.
#include "check.h"
#include "ops/support_harness.h"
#include "support_shim.h"

enum { MOST_BARRIERS = 256 };

// An op on one of its cases, in every order. False when a run goes wrong.
static bool passes(pb_opcode op, const op_case *c) {
    char why[200];
    bool right = true;
    op_run run, expected;
    op_run_init(&run, op, c, PB_F32, pb_backend_reference());
    op_run_init(&expected, op, c, PB_F32, pb_backend_reference());
    op_run_execute(&expected, pb_backend_reference());
    for (int order = 0; right && order < SHIM_ORDERS; order++) {
        shim_set_order((shim_order)order, 7);
        right = !op_run_execute(&run, shim_backend()) && op_run_agrees(&run, &expected, why, sizeof why);
    }
    op_run_deinit(&run);
    op_run_deinit(&expected);
    return right;
}

static bool seen[PB_OP_COUNT][MOST_BARRIERS];  // which op came by which barrier

int main(void) {
    pb_cuda_threads = 128;
    for (int op = 0; op < PB_OP_COUNT; op++) {
        for (int c = 0; shim_has((pb_opcode)op) && c < op_cases_of((pb_opcode)op)->count; c++) {
            shim_forget_barriers();
            CHECK(passes((pb_opcode)op, &op_cases_of((pb_opcode)op)->cases[c]));
            for (int i = 0; i < shim_barriers(); i++) seen[op][i] = seen[op][i] || shim_barrier_reached(i);
        }
    }
    for (int i = 0; i < shim_barriers(); i++) {
        bool missed = false;
        shim_skip_barrier(i);
        for (int op = 0; op < PB_OP_COUNT && !missed; op++)
            for (int c = 0; seen[op][i] && c < op_cases_of((pb_opcode)op)->count && !missed; c++)
                missed = !passes((pb_opcode)op, &op_cases_of((pb_opcode)op)->cases[c]);
        CHECK_THAT(missed, "nothing misses the barrier at %s", shim_barrier_place(i));
    }
    printf("%d barriers\n", shim_barriers());
    return CHECK_DONE();
}
