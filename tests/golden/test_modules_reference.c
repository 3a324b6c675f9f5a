// test: links=train,exec,nn,io,plan,graph,cpu,ref,base timeout=300
// The reference cases that lie beside the checkout: larger, with other seeds. Skipped where they are not there.
#include "golden/modules_cases.h"

#include "base/fs.h"

static const char *const names[] = {"text_encoder", "vae_encoder", "vae_decoder", "unet", "unet_wide"};

int main(void) {
    static const char shared[] = PB_SOURCE "/../shared/reference";
    if (pb_fs_kind_of(shared) != PB_FS_DIRECTORY) return SKIP("there is no ../shared/reference");
    for (int kind = 1; kind <= 2; kind++) {
        char model[512], folder[512];
        snprintf(model, sizeof model, "%s/tiny-sd%d", shared, kind);
        snprintf(folder, sizeof folder, "%s/modules-sd%d", shared, kind);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            run_case(model, folder, names[i], pb_backend_cpu(), PB_F32, (tolerance){1e-4, 1e-5});
    }
    return CHECK_DONE();
}
