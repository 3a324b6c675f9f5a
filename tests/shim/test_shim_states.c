// test: links=shim,ref,quant,base timeout=300
// The CUDA kernel of AdamW on every format of its state, run through the shim, against the scalar reference: with
// threads and blocks forward, reversed and at random, and in other block sizes, to the same bits.
#include "check.h"
#include "ops/support_adamw_states.h"
#include "support_shim.h"

static const char *setting;

static void report(bool good, const char *format, const char *what, int64_t elements) {
    CHECK_THAT(good, "%s, %lld elements, %s: %s", format, (long long)elements, setting, what);
}

int main(void) {
    setting = "forward";
    shim_set_order(SHIM_FORWARD, 0);
    adamw_states_compare(shim_backend(), 13000, report);
    setting = "reversed";
    shim_set_order(SHIM_REVERSED, 0);
    adamw_states_compare(shim_backend(), 1000, report);
    setting = "at random";
    shim_set_order(SHIM_RANDOM, 1);
    adamw_states_compare(shim_backend(), 1000, report);
    setting = "64 threads";
    pb_cuda_threads = 64;
    adamw_states_compare(shim_backend(), 1000, report);
    return CHECK_DONE();
}
