// test: links=cpu,ref,quant,base
// AdamW on every format of its state: the CPU kernel gives the reference's bits on every instruction set, in place or
// not, whole or slice by slice; a skipped step changes nothing; and the weights stay near what they become with fp32
// state.
#include "base/isa.h"
#include "base/parallel.h"
#include "check.h"
#include "support_adamw_states.h"

static void report(bool good, const char *format, const char *what, int64_t elements) {
    CHECK_THAT(good, "%s, %lld elements, instruction set %d: %s", format, (long long)elements, pb_cpu_isa().level,
               what);
}

int main(void) {
    pb_threads_set(2);
    for (int level = PB_ISA_SCALAR; level <= (int)pb_cpu_isa_best().level; level++) {
        pb_cpu_isa_set((pb_isa){(pb_isa_level)level, false});
        adamw_states_compare(pb_backend_cpu(), 70000, report);
    }
    adamw_states_distances(pb_backend_cpu(), report);
    return CHECK_DONE();
}
