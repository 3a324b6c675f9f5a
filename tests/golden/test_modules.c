// test: links=train,exec,nn,io,plan,graph,cpu,ref,base timeout=300
// Every part of three small pipelines against diffusers (make_modules.py): outputs and all gradients.
#include "golden/modules_cases.h"

static const char *const cases[][2] = {
    {"sd1", "text_encoder"}, {"sd1", "vae_encoder"}, {"sd1", "vae_decoder"}, {"sd1", "unet"},  {"sd2", "text_encoder"},
    {"sd2", "vae_encoder"},  {"sd2", "vae_decoder"}, {"sd2", "unet"},        {"sdxl", "unet"}, {"distilled", "unet"},
};

int main(void) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/golden/modules/%s", PB_TEST_DATA, cases[i][0]);
        const char *name = cases[i][1];
        run_case(folder, folder, name, pb_backend_reference(), PB_F64, (tolerance){1e-4, 1e-5});
        run_case(folder, folder, name, pb_backend_cpu(), PB_F32, (tolerance){1e-4, 1e-5});
        // In 16 bits nothing can be as near as that, and nothing may be far.
        const double half = run_case(folder, folder, name, pb_backend_cpu(), PB_F16, (tolerance){5e-2, 1e-2});
        const double bfloat = run_case(folder, folder, name, pb_backend_cpu(), PB_BF16, (tolerance){4e-1, 8e-2});
        CHECK_THAT(half > 1e-5 && bfloat > 2 * half, "%s: fp16 is off by %.2e, bf16 by %.2e", name, half, bfloat);
    }
    return CHECK_DONE();
}
