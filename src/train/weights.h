// A module's parameters between a model directory's files and an executor's slab: converted to the dtypes of the
// values, convolution kernels transposed (O,I,H,W in the files, O,H,W,I in the program), a few MiB at a time.
#ifndef PB_TRAIN_WEIGHTS_H
#define PB_TRAIN_WEIGHTS_H

#include "exec/executor.h"
#include "io/weights_file.h"
#include "nn/module.h"

// Whether the file has every parameter, each in its shape, and nothing that the module does not know; tensors of the
// module's siblings and ignored buffers are fine. PB_ERR_FORMAT, naming tensor and file.
pb_status pb_weights_check(const pb_module *m, const pb_weights *weights);

// Checks, then writes each parameter's working copy and, where it has one of its own, its master.
pb_status pb_weights_load(const pb_module *m, const pb_weights *weights, pb_executor *executor);

// The next tensor of `writer`: a value of the shape of `param` (itself, its gradient), in the file's layout and
// converted to the dtype that was declared. A master that is a residual is joined with its working weight. PB_NONE
// writes zeros.
pb_status pb_weights_stream(const pb_module *m, const pb_param *param, const pb_executor *executor, pb_vid value,
                            pb_safetensors_writer *writer);

// Writes the parameters (the masters, where there are) to a safetensors file with the names, shapes and further tensors
// of `source`. `dtype`: of the floating parameters, or PB_DTYPE_COUNT for each tensor's dtype in `source`. The file
// appears when it is complete.
pb_status pb_weights_save(const pb_module *m, const pb_weights *source, const pb_executor *executor, pb_dtype dtype,
                          const char *path);

// Writes the tensors of `source` to one file, those of 16 and 32 floating bits as `dtype` (PB_DTYPE_COUNT: as they
// are). The file appears when it is complete.
pb_status pb_weights_rewrite(const pb_weights *source, pb_dtype dtype, const char *path);
// Bytes of the tensors in such a file.
uint64_t pb_weights_bytes_as(const pb_weights *weights, pb_dtype dtype);

#endif
