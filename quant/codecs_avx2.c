#define PB_CODECS_TABLE pb_codecs_avx2
#include "quant/codecs_simd.h"
